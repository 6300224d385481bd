#!/usr/bin/env cwl-runner
# scdrugmap explain, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: explain
label: Explain which genes drive the answers of a predictor, and how sure that is
doc: |
  Explain which genes drive the answers of a predictor, and how sure that is.

  Writes one row per gene for all cells, each class and each sample: its mean attribution, its
  share in all attributions, its rank and how much the rank moves, whether more of it speaks for
  sensitive, and, with --label, its differential expression. A gene that drives a prediction is
  not for that reason a cause of the response.

  Models are explained by integrated gradients (needs the extra `explain`), and every method is
  checked by permuting some genes. With several predictors their rankings are compared.
baseCommand: [scdrugmap, explain]
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
  input:
    type: [File, Directory]
    inputBinding: {position: 1}
    doc: 'File of cells: h5ad or 10x h5, or a folder of zarr or 10x.'
  predictor:
    type: {type: array, items: File, inputBinding: {prefix: --predictor}}
    inputBinding: {}
    doc: 'File made by `scdrugmap train`; repeatable: several (seeds, folds) are compared.'
  method:
    type: {type: enum, symbols: [auto, gradients, coefficients, permutation]}
    inputBinding: {prefix: --method}
    default: auto
    doc: 'auto: gradients of models, coefficients of linear estimators, else permutation.'
  baseline:
    type: {type: enum, symbols: [zero, mean]}
    inputBinding: {prefix: --baseline}
    default: zero
    doc: "What gradients compare with: no vector, or the mean vector of the cell's genes."
  steps:
    type: int
    inputBinding: {prefix: --steps}
    default: 50
    doc: Points between baseline and cell at which a gradient is taken.
  max_cells:
    type: int
    inputBinding: {prefix: --max-cells}
    default: 500
    doc: Most cells, drawn evenly over samples.
  max_genes:
    type: int
    inputBinding: {prefix: --max-genes}
    default: 200
    doc: Most genes that --method permutation looks at, by variance.
  check_genes:
    type: int
    inputBinding: {prefix: --check-genes}
    default: 24
    doc: 'Genes that are permuted to check another method; 0: none.'
  top:
    type: int
    inputBinding: {prefix: --top}
    default: 50
    doc: Genes of the table of each sample.
  sample:
    type: string?
    inputBinding: {prefix: --sample}
    doc: 'Column of samples [default: that of training].'
  label:
    type: string?
    inputBinding: {prefix: --label}
    doc: Column of obs with the response.
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
  de_unit:
    type: {type: enum, symbols: [auto, sample, cell]}
    inputBinding: {prefix: --de-unit}
    default: auto
    doc: 'What differential expression is tested over; auto: samples if there are enough.'
  figures:
    type: string?
    inputBinding: {prefix: --figures}
    doc: Draw the figures into this folder.
  image:
    type: {type: enum, symbols: [svg, png]}
    inputBinding: {prefix: --image}
    default: svg
    doc: Format of the figures.
  summary:
    type: string?
    inputBinding: {prefix: --summary}
    doc: Write all but the table as JSON.
  weights:
    type: ['null', {type: array, items: [string, Directory], inputBinding: {prefix: --weights}}]
    inputBinding: {}
    doc: Folder of a model's weights, if they are not where weights are kept.
  allow_mismatch:
    type: boolean
    inputBinding: {prefix: --allow-mismatch}
    default: false
    doc: Go on with another version of the model, or other weights, than in training.
  min_genes:
    type: int?
    inputBinding: {prefix: --min-genes}
    doc: Fewest known genes to go on with.
  device:
    type: string
    inputBinding: {prefix: --device}
    default: auto
    doc: auto, cpu, cuda, cuda:N or mps.
  token_budget:
    type: int?
    inputBinding: {prefix: --token-budget}
    doc: Most tokens in a batch.
  seed:
    type: int
    inputBinding: {prefix: --seed}
    default: 0
    doc: Random seed.
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
    default: genes.tsv
    doc: File to write, whole or not at all.
outputs:
  genes: {type: File, outputBinding: {glob: $(inputs.output)}}
  drawn: {type: Directory?, outputBinding: {glob: $(inputs.figures)}}
  summarized: {type: File?, outputBinding: {glob: $(inputs.summary)}}
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
