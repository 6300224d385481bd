#!/usr/bin/env cwl-runner
# scdrugmap step join, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: benchmark-join
label: Join the shards of one network, given in any order
doc: |
  Join the shards of one network, given in any order.
baseCommand: [scdrugmap, step, join]
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
  shards:
    type: {type: array, items: File}
    inputBinding: {position: 1}
    doc: Shards, in any order.
  splits:
    type: Directory
    inputBinding: {prefix: --splits}
    doc: Folder splits of `step plan`.
arguments: [{prefix: --output, valueFrom: embeddings.npy}]
outputs:
  embeddings: {type: File, outputBinding: {glob: embeddings.npy}}
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
