#!/usr/bin/env cwl-runner
# The part of benchmark.cwl that reads the embeddings of one network.
cwlVersion: v1.2
class: Workflow
id: benchmark-network
label: Embed cells with one network in shards, and train heads on them

requirements:
  ScatterFeatureRequirement: {}

inputs:
  config: File
  data: {type: {type: array, items: [File, Directory]}}
  weights: {type: {type: array, items: Directory}}
  splits: Directory
  shard_names: string[]
  network: int
  tasks: File[]

steps:
  embed:
    run: ../tools/benchmark-embed.cwl
    scatter: shard
    in:
      config: config
      data: data
      weights: weights
      splits: splits
      network: network
      shard: shard_names
    out: [embedded]

  join:
    run: ../tools/benchmark-join.cwl
    in: {shards: embed/embedded, splits: splits}
    out: [embeddings]

  train:
    run: ../tools/benchmark-train.cwl
    scatter: task
    in:
      config: config
      data: data
      weights: weights
      splits: splits
      embeddings: join/embeddings
      task: tasks
    out: [part]

outputs:
  embeddings: {type: File, outputSource: join/embeddings}
  parts: {type: {type: array, items: ["null", File]}, outputSource: train/part}
