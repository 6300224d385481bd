#!/usr/bin/env cwl-runner
# scdrugmap evaluate, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: evaluate
label: 'Score predictions on test cells: per fold, pooled, per sample and per dataset'
doc: |
  Score predictions on test cells: per fold, pooled, per sample and per dataset.

  Several files may hold several models, seeds and folds. Cells without an answer count as wrong;
  predictions of training cells are left out.
baseCommand: [scdrugmap, evaluate]
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
  predictions:
    type: {type: array, items: File}
    inputBinding: {position: 1}
    doc: Tables made by predict.
  splits:
    type: File
    inputBinding: {prefix: --splits}
    doc: Split that the predictions were made on.
  in_sample:
    type: boolean
    inputBinding: {prefix: --in-sample}
    default: false
    doc: Score training cells too, and say so.
  exclude_invalid:
    type: boolean
    inputBinding: {prefix: --exclude-invalid}
    default: false
    doc: Leave cells without an answer out instead of counting them as wrong.
  draws:
    type: int
    inputBinding: {prefix: --draws}
    default: 2000
    doc: 'Draws of the bootstrap; 0: no intervals.'
  comparisons:
    type: string?
    inputBinding: {prefix: --comparisons}
    doc: Also compare the models pair by pair, into this table.
  reference:
    type: string?
    inputBinding: {prefix: --reference}
    doc: 'Compare all others with this one [default: all pairs].'
  seed:
    type: int
    inputBinding: {prefix: --seed}
    default: 0
    doc: Random seed.
  output:
    type: string
    inputBinding: {prefix: --output}
    default: metrics.tsv
    doc: File to write, whole or not at all.
outputs:
  metrics: {type: File, outputBinding: {glob: $(inputs.output)}}
  compared: {type: File?, outputBinding: {glob: $(inputs.comparisons)}}
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
