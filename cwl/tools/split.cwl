#!/usr/bin/env cwl-runner
# scdrugmap split, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: split
label: Divide labelled cells into folds, and write which cell is trained on and which is tested
doc: |
  Divide labelled cells into folds, and write which cell is trained on and which is tested.

  Cells of one donor or sample, and copies of a cell, stay on one side of every fold. The protocol
  says what is held out; paper-pooled divides cells at random, as much of the literature does, and
  is no evidence.
baseCommand: [scdrugmap, split]
requirements:
  ResourceRequirement: {coresMin: 1, ramMin: 4096, tmpdirMin: 1024, outdirMin: 1024}
  EnvVarRequirement:
    envDef:
      HF_HUB_OFFLINE: '1'
      OMP_NUM_THREADS: '1'
      SCDRUGMAP_CACHE: $(runtime.tmpdir)/cache
      MPLCONFIGDIR: $(runtime.tmpdir)/matplotlib
hints:
  SoftwareRequirement: {packages: {scdrugmap: {version: [0.1.0]}}}
  DockerRequirement: {dockerPull: scdrugmap:0.1.0}
  ToolTimeLimit: {timelimit: 14400}
  NetworkAccess: {networkAccess: false}
inputs:
  inputs:
    type: {type: array, items: [File, Directory]}
    inputBinding: {position: 1}
    doc: 'Files of cells: h5ad or 10x h5, or folders of zarr or 10x.'
  label:
    type: string
    inputBinding: {prefix: --label}
    doc: Column of obs with the response; needed unless a samplesheet has it.
  sensitive:
    type: string?
    inputBinding: {prefix: --sensitive}
    doc: Labels that mean sensitive.
  resistant:
    type: string?
    inputBinding: {prefix: --resistant}
    doc: Labels that mean resistant.
  drop:
    type: string?
    inputBinding: {prefix: --drop}
    doc: Labels of cells to set aside.
  group:
    type: string?
    inputBinding: {prefix: --group}
    doc: 'Column of donors: patients, animals, cultures.'
  sample:
    type: string?
    inputBinding: {prefix: --sample}
    doc: 'Column of samples [default: the group].'
  study:
    type: string?
    inputBinding: {prefix: --study}
    doc: "Column of studies [default: the file's name]."
  dataset:
    type: string?
    inputBinding: {prefix: --dataset}
    doc: "Column of datasets [default: the file's name]."
  cell_line:
    type: string?
    inputBinding: {prefix: --cell-line}
    doc: Cells of one line in a study stay together.
  control:
    type: string?
    inputBinding: {prefix: --control}
    doc: Cells of one shared control stay together.
  tissue:
    type: string?
    inputBinding: {prefix: --tissue}
    doc: Column of tissues, to group results by.
  cancer_type:
    type: string?
    inputBinding: {prefix: --cancer-type}
    doc: Column of cancer types (loco).
  drug_type:
    type: string?
    inputBinding: {prefix: --drug-type}
    doc: Column of drug types, to group results by.
  drug:
    type: string?
    inputBinding: {prefix: --drug}
    doc: Column of drugs or regimens (lodrug).
  collection:
    type: string?
    inputBinding: {prefix: --collection}
    doc: Column of primary and external (external).
  protocol:
    type: string
    inputBinding: {prefix: --protocol}
    default: pooled-group
    doc: 'How to divide: pooled-group, within, lodo, loso, loco, lodrug, external, zero-shot, zero-shot-unlabelled,
      paper-pooled; or few-shot, with --shots.'
  target:
    type: ['null', {type: array, items: string, inputBinding: {prefix: --target}}]
    inputBinding: {}
    doc: 'Hold out this dataset, study, cancer type or drug only; repeatable. For external: an external
      dataset.'
  shots:
    type: int?
    inputBinding: {prefix: --shots}
    doc: 'With --protocol few-shot: labelled samples per class, 1, 2, 4, 8.'
  shot_unit:
    type: ['null', {type: enum, symbols: [sample, cell]}]
    inputBinding: {prefix: --shot-unit}
    doc: 'What --shots counts: whole samples, or cells of as many samples [default: sample].'
  draws:
    type: int
    inputBinding: {prefix: --draws}
    default: 10
    doc: Draws of labelled samples per target.
  folds:
    type: int
    inputBinding: {prefix: --folds}
    default: 5
    doc: Number of folds.
  seed:
    type: int
    inputBinding: {prefix: --seed}
    default: 0
    doc: Seed of the split.
  validation:
    type: boolean
    inputBinding: {prefix: --validation}
    default: false
    doc: Set a fifth of the training groups aside.
  layer:
    type: string?
    inputBinding: {prefix: --layer}
    doc: 'Where the values are: X, raw, or the name of a layer.'
  values:
    type: ['null', {type: enum, symbols: [counts, lognorm]}]
    inputBinding: {prefix: --values}
    doc: What the values are, if the file does not show it.
  gene_id:
    type: ['null', {type: enum, symbols: [symbol, ensembl]}]
    inputBinding: {prefix: --gene-id}
    doc: Kind of gene names.
  where:
    type: ['null', {type: array, items: string, inputBinding: {prefix: --where}}]
    inputBinding: {}
    doc: Take only cells with this value in obs; repeatable.
  round:
    type: boolean
    inputBinding: {prefix: --round}
    default: false
    doc: Round fractional counts (RSEM).
  transpose:
    type: boolean
    inputBinding: {prefix: --transpose}
    default: false
    doc: The file holds genes in rows.
  output:
    type: string
    inputBinding: {prefix: --output}
    default: splits.tsv
    doc: File to write, whole or not at all.
outputs:
  splits: {type: File, outputBinding: {glob: $(inputs.output)}}
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
