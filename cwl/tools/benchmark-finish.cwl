#!/usr/bin/env cwl-runner
# scdrugmap step finish, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: benchmark-finish
label: Evaluate what was predicted, and write the folder of the run with its report
doc: |
  Evaluate what was predicted, and write the folder of the run with its report.
baseCommand: [scdrugmap, step, finish]
requirements:
  ResourceRequirement: {coresMin: 1, ramMin: 6144, tmpdirMin: 1024, outdirMin: 1024}
  EnvVarRequirement:
    envDef:
      HF_HUB_OFFLINE: '1'
      OMP_NUM_THREADS: '1'
      SCDRUGMAP_CACHE: $(runtime.tmpdir)/cache
      MPLCONFIGDIR: $(runtime.tmpdir)/matplotlib
hints:
  SoftwareRequirement: {packages: {scdrugmap: {version: [0.1.0]}}}
  DockerRequirement: {dockerPull: scdrugmap:0.1.0}
  ToolTimeLimit: {timelimit: 86400}
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
  embeddings:
    type: ['null', {type: array, items: File, inputBinding: {prefix: --embeddings}}]
    inputBinding: {}
    doc: Of each network, in the order of the plan; repeatable.
  output:
    type: string
    inputBinding: {prefix: --output}
    default: run
    doc: Folder of the run to make.
  parts:
    type: {type: array, items: ['null', File], inputBinding: {prefix: --part}}
    inputBinding: {}
    doc: Predictions of tasks; null where a task had none.
  network_parts:
    type: {type: array, items: {type: array, items: ['null', File], inputBinding: {prefix: --part}}}
    inputBinding: {}
    doc: The same, by network.
outputs:
  run: {type: Directory, outputBinding: {glob: $(inputs.output)}}
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
