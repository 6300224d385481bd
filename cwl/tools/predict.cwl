#!/usr/bin/env cwl-runner
# scdrugmap predict, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: predict
label: Predict every cell of a file; labels are never needed
doc: |
  Predict every cell of a file; labels are never needed.

  The predictor first predicts its own synthetic cells again and stops if anything has changed.
  Cells that it was trained on are recognised by content and marked with the role train. How many
  cells lie further from the training cells than 99 % of those do is said at the end: do not trust
  predictions of samples that are mostly out there.

  With --model a text model is asked about each cell, without any training; what is sent, to whom
  and at what cost is shown by --dry-run.
baseCommand: [scdrugmap, predict]
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
  NetworkAccess: {networkAccess: $(inputs.allow_network)}
inputs:
  input:
    type: [File, Directory]
    inputBinding: {position: 1}
    doc: 'File of cells: h5ad or 10x h5, or a folder of zarr or 10x.'
  predictor:
    type: File?
    inputBinding: {prefix: --predictor}
    doc: File made by `scdrugmap train`.
  model:
    type: string?
    inputBinding: {prefix: --model}
    doc: 'Instead of a predictor: ask this text model, without any training.'
  set:
    type: ['null', {type: array, items: string, inputBinding: {prefix: --set}}]
    inputBinding: {}
    doc: Option of --model; repeatable.
  splits:
    type: File?
    inputBinding: {prefix: --splits}
    doc: 'Split of the training: gives each cell its role.'
  h5ad:
    type: string?
    inputBinding: {prefix: --h5ad}
    doc: Write the answers as AnnData too.
  key_added:
    type: string
    inputBinding: {prefix: --key-added}
    default: scdrugmap
    doc: Prefix of the keys in --h5ad.
  samples_table:
    type: string?
    inputBinding: {prefix: --samples-table}
    doc: Write one row per sample too.
  cells_table:
    type: string?
    inputBinding: {prefix: --cells-table}
    doc: 'Write what else is known of each cell: distance to the training cells, conformal set.'
  summary:
    type: string?
    inputBinding: {prefix: --summary}
    doc: Write genes read, cells far off, conformal sets and samples as JSON.
  sample:
    type: string?
    inputBinding: {prefix: --sample}
    doc: 'Column of samples, for the table of samples and for models whose cells see each other [default:
      that of training].'
  min_cells:
    type: int
    inputBinding: {prefix: --min-cells}
    default: 30
    doc: Fewest predicted cells of a sample that something is said about.
  conformal_level:
    type: double?
    inputBinding: {prefix: --conformal-level}
    doc: 'Level of the conformal sets, 0.5 to 0.99 [default: 0.9, if the predictor has any].'
  allow_mismatch:
    type: boolean
    inputBinding: {prefix: --allow-mismatch}
    default: false
    doc: Go on with another version of the model, or other weights, than in training.
  dataset:
    type: string?
    inputBinding: {prefix: --dataset}
    doc: Column of datasets, if given to split.
  drug:
    type: string?
    inputBinding: {prefix: --drug}
    doc: Drug of interest; warns if it is not the trained one.
  weights:
    type: ['null', {type: array, items: [string, Directory], inputBinding: {prefix: --weights}}]
    inputBinding: {}
    doc: Folder of the model's weights, if they are not where weights are kept.
  min_genes:
    type: int?
    inputBinding: {prefix: --min-genes}
    doc: Fewest known genes to go on with.
  device:
    type: string
    inputBinding: {prefix: --device}
    default: auto
    doc: auto, cpu, cuda, cuda:N or mps.
  precision:
    type: ['null', {type: enum, symbols: [float32, bfloat16]}]
    inputBinding: {prefix: --precision}
    doc: 'Arithmetic of the network [default: that of the training].'
  token_budget:
    type: int?
    inputBinding: {prefix: --token-budget}
    doc: Most tokens in a batch.
  allow_network:
    type: boolean
    inputBinding: {prefix: --allow-network}
    default: false
    doc: 'Text models: send the genes of cells to hosts other than this machine.'
  yes:
    type: boolean
    inputBinding: {prefix: --yes}
    default: false
    doc: 'Text models: agree to requests and costs.'
  max_cost:
    type: double?
    inputBinding: {prefix: --max-cost}
    doc: 'Text models: stop before this much is spent; answers are kept.'
  price:
    type: string?
    inputBinding: {prefix: --price}
    doc: 'Text models: USD per million tokens, if the built-in table is wrong.'
  api_key_env:
    type: string?
    inputBinding: {prefix: --api-key-env}
    doc: 'Text models: environment variable with the key [default: OPENAI_API_KEY for OpenAI, none for
      other hosts].'
  concurrency:
    type: int
    inputBinding: {prefix: --concurrency}
    default: 4
    doc: 'Text models: requests at a time.'
  requests_per_minute:
    type: double?
    inputBinding: {prefix: --requests-per-minute}
    doc: 'Text models: most requests per minute.'
  tokens_per_minute:
    type: double?
    inputBinding: {prefix: --tokens-per-minute}
    doc: 'Text models: most tokens per minute.'
  timeout:
    type: double
    inputBinding: {prefix: --timeout}
    default: 60.0
    doc: 'Text models: longest wait for one reply.'
  retry_invalid:
    type: boolean
    inputBinding: {prefix: --retry-invalid}
    default: false
    doc: 'Text models: ask again where the kept answer was invalid.'
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
    default: predictions.tsv
    doc: File to write, whole or not at all.
outputs:
  predictions: {type: File, outputBinding: {glob: $(inputs.output)}}
  annotated: {type: File?, outputBinding: {glob: $(inputs.h5ad)}}
  samples: {type: File?, outputBinding: {glob: $(inputs.samples_table)}}
  cells: {type: File?, outputBinding: {glob: $(inputs.cells_table)}}
  summarized: {type: File?, outputBinding: {glob: $(inputs.summary)}}
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
