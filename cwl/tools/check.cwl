#!/usr/bin/env cwl-runner
# scdrugmap check, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: check
label: Show what a file holds, what is wrong with it, and which models can use it
doc: |
  Show what a file holds, what is wrong with it, and which models can use it.

  Every block of the file is read and validated. The columns that could be the response and the
  patient are named, with the command to type next. A file that cannot be used ends with exit code
  3; warnings and notes do not.
baseCommand: [scdrugmap, check]
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
  input:
    type: [File, Directory]
    inputBinding: {position: 1}
    doc: 'File of cells: h5ad or 10x h5, or a folder of zarr or 10x.'
  quick:
    type: boolean
    inputBinding: {prefix: --quick}
    default: false
    doc: Look at 2,000 cells instead of all.
  no_models:
    type: boolean
    inputBinding: {prefix: --no-models}
    default: false
    doc: 'Switch off: Ask the installed models about the genes, or not.'
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
    default: check.json
    doc: Name of the file of what is printed.
arguments: [--json]
outputs:
  found: {type: stdout}
stdout: $(inputs.output)
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
