#!/usr/bin/env cwl-runner
# scdrugmap train, as a CWL tool.
# Made by scripts/make_cwl.py from the options of the command line: edit those, and
# scdrugmap/run/cwl_tools.py for what they cannot tell.
cwlVersion: v1.2
class: CommandLineTool
id: train
label: Train a predictor on the training cells of one fold, and write it as one file
doc: |
  Train a predictor on the training cells of one fold, and write it as one file.

  Give either --estimator (learns from expression; see `scdrugmap plugins list`) or --model: a
  head on the embeddings of a foundation model, which --strategy lora or full trains too. Cells of
  the validation role tell when to stop, and decide temperature, threshold and conformal sets. The
  file holds no cell and no published weights of the model. Several processes, each on its GPU,
  train together under `accelerate launch -m scdrugmap train ...`.
baseCommand: [scdrugmap, train]
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
  inputs:
    type: {type: array, items: [File, Directory]}
    inputBinding: {position: 1}
    doc: 'Files of cells: h5ad or 10x h5, or folders of zarr or 10x.'
  splits:
    type: File
    inputBinding: {prefix: --splits}
    doc: Table of `scdrugmap split`.
  fold:
    type: int
    inputBinding: {prefix: --fold}
    doc: Fold whose training cells are used.
  estimator:
    type: string?
    inputBinding: {prefix: --estimator}
    doc: Train this estimator on expression.
  model:
    type: string?
    inputBinding: {prefix: --model}
    doc: Train a head on this model, or with it.
  strategy:
    type: {type: enum, symbols: [frozen, lora, full, prompt]}
    inputBinding: {prefix: --strategy}
    default: frozen
    doc: 'What becomes of the model: frozen leaves it as it is, lora trains adapters in it, full all of
      it; prompt asks a text model and fits nothing.'
  shots:
    type: int
    inputBinding: {prefix: --shots}
    default: 0
    doc: 'With --strategy prompt: training cells of each label shown before each question.'
  head:
    type: ['null', {type: enum, symbols: [logistic, mlp]}]
    inputBinding: {prefix: --head}
    doc: "Classifier on embeddings [default: logistic; mlp for splits of the paper's family]."
  embeddings:
    type: ['null', {type: array, items: File, inputBinding: {prefix: --embeddings}}]
    inputBinding: {}
    doc: Embeddings made by `scdrugmap embed`, one file per input; repeatable.
  max_cells:
    type: int
    inputBinding: {prefix: --max-cells}
    default: 50000
    doc: Most training cells of estimators and of the logistic head, drawn evenly over groups.
  sample:
    type: string?
    inputBinding: {prefix: --sample}
    doc: Column of samples, as given to split.
  dataset:
    type: string?
    inputBinding: {prefix: --dataset}
    doc: Column of datasets, if given to split.
  lora_targets:
    type: string?
    inputBinding: {prefix: --lora-targets}
    doc: "Fine-tuning: regular expression of the adapted layers; default: the model's own"
  lora_r:
    type: int?
    inputBinding: {prefix: --lora-r}
    doc: "Fine-tuning: rank of the adapters; default: the model's own"
  lora_alpha:
    type: double?
    inputBinding: {prefix: --lora-alpha}
    doc: "Fine-tuning: adapters are scaled by alpha / r; default: the model's own"
  lora_dropout:
    type: double?
    inputBinding: {prefix: --lora-dropout}
    doc: "Fine-tuning: dropout before the adapters; default: the model's own"
  epochs:
    type: int?
    inputBinding: {prefix: --epochs}
    doc: 'Fine-tuning: most times that every training cell is seen [default: 10]'
  max_steps:
    type: int?
    inputBinding: {prefix: --max-steps}
    doc: 'Fine-tuning: most optimiser steps; default: as many as the epochs have'
  batch_size:
    type: int?
    inputBinding: {prefix: --batch-size}
    doc: 'Fine-tuning: cells of an optimiser step, whatever the memory: they go through the network in
      smaller batches; default: 32, or 1024 for models whose cells see each other'
  learning_rate:
    type: double?
    inputBinding: {prefix: --learning-rate}
    doc: 'Fine-tuning: highest rate of the network; default: 1e-4 for lora, 2e-5 for full'
  head_learning_rate:
    type: double?
    inputBinding: {prefix: --head-learning-rate}
    doc: 'Fine-tuning: highest rate of the head [default: 0.001]'
  weight_decay:
    type: double?
    inputBinding: {prefix: --weight-decay}
    doc: 'Fine-tuning: of AdamW [default: 0.01]'
  warmup:
    type: double?
    inputBinding: {prefix: --warmup}
    doc: 'Fine-tuning: share of the steps in which the rate rises from zero [default: 0.1]'
  schedule:
    type: ['null', {type: enum, symbols: [cosine, constant]}]
    inputBinding: {prefix: --schedule}
    doc: 'Fine-tuning: what the rate does after the warm-up: falls to zero, or stays [default: cosine]'
  clip_norm:
    type: double?
    inputBinding: {prefix: --clip-norm}
    doc: 'Fine-tuning: most norm of the gradient; 0: no limit [default: 1.0]'
  patience:
    type: int?
    inputBinding: {prefix: --patience}
    doc: 'Fine-tuning: evaluations without a better one before training stops; 0: never [default: 3]'
  evaluate_every:
    type: int?
    inputBinding: {prefix: --evaluate-every}
    doc: 'Fine-tuning: steps between two evaluations; default: an epoch'
  hold_out:
    type: double?
    inputBinding: {prefix: --hold-out}
    doc: 'Fine-tuning: share of the training groups held out for early stopping where the split has no
      validation cells [default: 0.2]'
  class_weights:
    type: boolean?
    inputBinding: {prefix: --class-weights}
    doc: 'Fine-tuning: weigh both labels alike in the loss'
  gradient_checkpointing:
    type: boolean?
    inputBinding: {prefix: --gradient-checkpointing}
    doc: 'Fine-tuning: compute activations twice to hold fewer of them'
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
    default: predictor.zip
    doc: File to write, whole or not at all.
outputs:
  predictor: {type: File, outputBinding: {glob: $(inputs.output)}}
successCodes: [0]
permanentFailCodes: [2, 3, 4]
temporaryFailCodes: [5]
