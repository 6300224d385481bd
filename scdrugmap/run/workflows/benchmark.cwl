#!/usr/bin/env cwl-runner
# A whole benchmark: scatter over models x protocols x folds (and over shards of cells where
# networks embed), fan-in to evaluation and report. `scdrugmap benchmark --executor cwl` runs this
# file; its tables are those of the local executor, byte for byte.
cwlVersion: v1.2
class: Workflow
id: benchmark
label: Benchmark of models, from labelled cells to a report
doc: |
  config is a file as `scdrugmap benchmark CONFIG.yaml` reads it; data are the files of cells that it
  names, in its order, wherever they lie, and weights the folders that it names, in its order. The
  result is the folder of the run: metrics.tsv, predictions, splits, run.json, report.html.

requirements:
  ScatterFeatureRequirement: {}
  SubworkflowFeatureRequirement: {}
  MultipleInputFeatureRequirement: {}

inputs:
  config: {type: File, doc: Configuration of the benchmark.}
  data:
    type: {type: array, items: [File, Directory]}
    doc: Files of cells, in the order of the configuration.
  weights:
    type: {type: array, items: Directory}
    default: []
    doc: Folders of weights that the configuration names, in its order.
  shards: {type: int, default: 1, doc: Shares into which the cells of each network are divided.}
  name: {type: string, default: run, doc: Name of the folder of the run.}

steps:
  plan:
    run: ../tools/benchmark-plan.cwl
    in: {config: config, data: data, weights: weights, shards: shards}
    out: [splits, shard_names, networks, network_tasks, tuning_tasks, other_tasks]

  network:
    # one network: its embeddings in shards, then a head per protocol and fold
    run: benchmark-network.cwl
    scatter: [network, tasks]
    scatterMethod: dotproduct
    in:
      config: config
      data: data
      weights: weights
      splits: plan/splits
      shard_names: plan/shard_names
      network: plan/networks
      tasks: plan/network_tasks
    out: [embeddings, parts]

  tune:
    # networks at work: fine-tuning and text models, per protocol and fold
    run: ../tools/benchmark-tune.cwl
    scatter: task
    in: {config: config, data: data, weights: weights, splits: plan/splits, task: plan/tuning_tasks}
    out: [part]

  train:
    # estimators, per protocol and fold
    run: ../tools/benchmark-train.cwl
    scatter: task
    in: {config: config, data: data, weights: weights, splits: plan/splits, task: plan/other_tasks}
    out: [part]

  finish:
    run: ../tools/benchmark-finish.cwl
    in:
      config: config
      data: data
      weights: weights
      embeddings: network/embeddings
      network_parts: network/parts
      parts: {source: [train/part, tune/part], linkMerge: merge_flattened}
      output: name
    out: [run]

outputs:
  run: {type: Directory, outputSource: finish/run}
