#!/usr/bin/env cwl-runner
# scdrugmap report, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: report
label: Make one HTML file of RUN, the folder of a finished benchmark
doc: |
  Make one HTML file of RUN, the folder of a finished benchmark.

  The file holds all figures and the tables behind them and needs no network. Several runs are put
  side by side; only what was tested on the same cells is ranked.
baseCommand: [scdrugmap, report]
requirements:
  ResourceRequirement: {coresMin: 1, ramMin: 2048, tmpdirMin: 1024, outdirMin: 1024}
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
  runs:
    type: {type: array, items: Directory}
    inputBinding: {position: 1}
    doc: Folders of finished benchmarks.
  output:
    type: string
    inputBinding: {prefix: --output}
    default: report.html
    doc: HTML file to write, whole or not at all.
  figures:
    type: string?
    inputBinding: {prefix: --figures}
    doc: Folder for every figure as SVG and PDF, with its table.
  crate:
    type: string?
    inputBinding: {prefix: --crate}
    doc: 'RO-Crate (zip) to publish: results, inputs, versions, licences.'
  interactive:
    type: boolean
    inputBinding: {prefix: --interactive}
    default: false
    doc: Figures show their numbers under the pointer (larger file; extra `report`).
outputs:
  html: {type: File, outputBinding: {glob: $(inputs.output)}}
  drawn: {type: Directory?, outputBinding: {glob: $(inputs.figures)}}
  packed: {type: File?, outputBinding: {glob: $(inputs.crate)}}
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
