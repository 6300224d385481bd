#!/usr/bin/env cwl-runner
# Predict every file of a cohort with one predictor, a job per file.
cwlVersion: v1.2
class: Workflow
id: predict-cohort
label: Predict the cells of many files
doc: |
  The tables are named after the files: a.h5ad gives a.predictions.tsv and a.samples.tsv. Files of
  one name in several folders would be written over each other: give each its own name.

requirements:
  ScatterFeatureRequirement: {}
  StepInputExpressionRequirement: {}

inputs:
  inputs: {type: {type: array, items: [File, Directory]}, doc: Files of cells; labels are not needed}
  predictor: {type: File, doc: File made by train.}
  weights:
    type: ["null", {type: array, items: [string, Directory]}]
    doc: Folder of the weights that the predictor's network needs.
  sample: {type: string?, doc: 'Column of samples, for the tables of samples.'}
  device: {type: string, default: auto}

steps:
  predict:
    run: ../tools/predict.cwl
    scatter: input
    in:
      input: inputs
      predictor: predictor
      weights: weights
      sample: sample
      device: device
      output: {valueFrom: $(inputs.input.nameroot).predictions.tsv}
      samples_table: {valueFrom: $(inputs.input.nameroot).samples.tsv}
    out: [predictions, samples]

outputs:
  predictions: {type: "File[]", outputSource: predict/predictions}
  samples: {type: {type: array, items: ["null", File]}, outputSource: predict/samples}
