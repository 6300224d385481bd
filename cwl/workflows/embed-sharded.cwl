#!/usr/bin/env cwl-runner
# Embed one file with one model, in shards on as many machines as there are.
cwlVersion: v1.2
class: Workflow
id: embed-sharded
label: Embed cells in shards and join them
doc: |
  shards names the shares, as in ["1/4", "2/4", "3/4", "4/4"]; every share is one job. The cells come
  out in the order of the file.

requirements:
  ScatterFeatureRequirement: {}

inputs:
  input: {type: [File, Directory], doc: File of cells.}
  model: {type: string, doc: Name of the model.}
  shards: {type: "string[]", doc: 'Shares, each I/N.'}
  weights:
    type: ["null", {type: array, items: [string, Directory]}]
    doc: Folder of the weights, or the word random.
  set:
    type: ["null", {type: array, items: string}]
    doc: Options of the model, each KEY=VALUE.
  sample: {type: string?, doc: Column of samples.}
  device: {type: string, default: auto}
  precision:
    type: {type: enum, symbols: [float32, bfloat16]}
    default: float32
  output: {type: string, default: embedded.h5ad, doc: Name of the result.}

steps:
  embed:
    run: ../tools/embed.cwl
    scatter: shard
    in:
      input: input
      model: model
      shard: shards
      weights: weights
      set: set
      sample: sample
      device: device
      precision: precision
    out: [embedded]
  merge:
    run: ../tools/merge.cwl
    in: {shards: embed/embedded, output: output}
    out: [merged]

outputs:
  embedded: {type: File, outputSource: merge/merged}
