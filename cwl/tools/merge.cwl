#!/usr/bin/env cwl-runner
# scdrugmap merge, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: merge
label: Join the files of ``embed --shard 1/N`` to ``N/N``, given in any order
doc: |
  Join the files of ``embed --shard 1/N`` to ``N/N``, given in any order.

  The cells come out in the order of the file that was embedded. Shards that are missing, or made
  with other options or weights, are refused.
baseCommand: [scdrugmap, merge]
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
  output:
    type: string
    inputBinding: {prefix: --output}
    default: embedded.h5ad
    doc: File to write, whole or not at all.
outputs:
  merged: {type: File, outputBinding: {glob: $(inputs.output)}}
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
