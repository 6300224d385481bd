#!/usr/bin/env cwl-runner
# scdrugmap step plan, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: benchmark-plan
label: Divide the cells, and list the tasks of all models, protocols and folds
doc: |
  Divide the cells, and list the tasks of all models, protocols and folds.
baseCommand: [scdrugmap, step, plan]
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
  config:
    type: File
    inputBinding: {position: 1}
    doc: Configuration of the benchmark.
  data:
    type: ['null', {type: array, items: [File, Directory], inputBinding: {prefix: --data}}]
    inputBinding: {}
    doc: 'Where the files of cells are, in the order of CONFIG; repeatable [default: where it says].'
  weights:
    type: ['null', {type: array, items: Directory, inputBinding: {prefix: --weights}}]
    inputBinding: {}
    doc: Where the folders of weights that CONFIG names are, in its order; repeatable.
  shards:
    type: int
    inputBinding: {prefix: --shards}
    default: 1
    doc: Shares into which the cells of each network are divided.
arguments: [--output-object, cwl.output.json, {prefix: --output, valueFrom: plan}]
outputs:
  splits: {type: Directory, outputBinding: {glob: plan/splits}}
  shard_names: {type: 'string[]'}
  networks: {type: 'int[]'}
  network_tasks: {type: {type: array, items: {type: array, items: File}}}
  tuning_tasks: {type: 'File[]'}
  other_tasks: {type: 'File[]'}
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
