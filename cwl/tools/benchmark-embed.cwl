#!/usr/bin/env cwl-runner
# scdrugmap step embed, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: benchmark-embed
label: Embed a share of the cells that take part, with one network
doc: |
  Embed a share of the cells that take part, with one network.
baseCommand: [scdrugmap, step, embed]
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
  splits:
    type: Directory
    inputBinding: {prefix: --splits}
    doc: Folder splits of `step plan`.
  network:
    type: int
    inputBinding: {prefix: --network}
    doc: Its number in the plan.
  shard:
    type: string
    inputBinding: {prefix: --shard}
    doc: Embed this share of the cells.
arguments: [{prefix: --output, valueFrom: shard.npz}]
outputs:
  embedded: {type: File, outputBinding: {glob: shard.npz}}
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
