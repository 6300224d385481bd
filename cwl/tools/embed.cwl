#!/usr/bin/env cwl-runner
# scdrugmap embed, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: embed
label: Embed the cells of INPUT and write them as obsm["X_<model>"] of an h5ad file
doc: |
  Embed the cells of INPUT and write them as obsm["X_<model>"] of an h5ad file.

  Finished parts are kept in the cache: an interrupted run goes on where it stopped, and the same
  cells are never embedded twice.
baseCommand: [scdrugmap, embed]
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
  model:
    type: string
    inputBinding: {prefix: --model}
    doc: Models to embed with.
  output:
    type: string
    inputBinding: {prefix: --output}
    default: embedded.h5ad
    doc: h5ad file to write, whole or not at all.
  shard:
    type: string?
    inputBinding: {prefix: --shard}
    doc: Embed only this share; join all with `merge`.
  empty:
    type: {type: enum, symbols: [nan, error, drop]}
    inputBinding: {prefix: --empty}
    default: nan
    doc: 'Cells without a gene that the model knows: NaN rows, an error, or left out.'
  sample:
    type: string?
    inputBinding: {prefix: --sample}
    doc: 'Column of samples: embeds their cells together in models that need it.'
  genes:
    type: string?
    inputBinding: {prefix: --genes}
    doc: Also write the mean vector of each gene, for models that give them.
  genes_by:
    type: string?
    inputBinding: {prefix: --genes-by}
    doc: One such mean per value of this column.
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
  weights:
    type: ['null', {type: array, items: [string, Directory], inputBinding: {prefix: --weights}}]
    inputBinding: {}
    doc: Folder of the weights, or random (untrained control); repeatable.
  randomize:
    type: int?
    inputBinding: {prefix: --randomize}
    doc: Keep vocabulary and sizes of the weights, replace all tensors by random ones.
  set:
    type: ['null', {type: array, items: string, inputBinding: {prefix: --set}}]
    inputBinding: {}
    doc: Option of a model (see `scdrugmap models show NAME`); repeatable.
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
    type: {type: enum, symbols: [float32, bfloat16]}
    inputBinding: {prefix: --precision}
    default: float32
    doc: Arithmetic of the network.
  token_budget:
    type: int?
    inputBinding: {prefix: --token-budget}
    doc: Most tokens in a batch.
  seed:
    type: int
    inputBinding: {prefix: --seed}
    default: 0
    doc: Random seed.
outputs:
  embedded: {type: File, outputBinding: {glob: $(inputs.output)}}
  gene_embeddings: {type: File?, outputBinding: {glob: $(inputs.genes)}}
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
