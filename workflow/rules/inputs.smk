# What runs read: a model, and the frozen items of each task.
#
# Needs the config, and a network for what comes from a hub; makes <resources>/models/<model>-<digest>/ and
# <resources>/data/<task>-<digest>/{train,heldout}.jsonl, where the digest covers the settings they depend on. Downloads
# happen on the machine that runs Snakemake: a cluster's nodes need no network.


rule train_model:
    output:
        directory(f"{STUDY.resources}/models/{{model}}-{{digest}}"),
    log:
        "logs/train_model/{model}-{digest}.log",
    benchmark:
        "logs/train_model/{model}-{digest}.benchmark.tsv"
    wildcard_constraints:
        model=any_of(STUDY.trained_models),
    conda:
        "../../envs/run.yaml"
    threads: STUDY.engine.threads
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "training {wildcards.model}"
    script:
        "../scripts/train_model.py"


rule fetch_model:
    output:
        directory(f"{STUDY.resources}/models/{{model}}-{{digest}}"),
    log:
        "logs/fetch_model/{model}-{digest}.log",
    benchmark:
        "logs/fetch_model/{model}-{digest}.benchmark.tsv"
    wildcard_constraints:
        model=any_of(STUDY.fetched_models),
    localrule: True
    conda:
        "../../envs/run.yaml"
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        source=lookup(dpath="models/{model}/source", within=config),
    message:
        "fetching {wildcards.model} from {params.source}"
    script:
        "../scripts/fetch_model.py"


rule freeze_data:
    output:
        train=f"{STUDY.resources}/data/{{task}}-{{digest}}/train.jsonl",
        heldout=f"{STUDY.resources}/data/{{task}}-{{digest}}/heldout.jsonl",
        source=f"{STUDY.resources}/data/{{task}}-{{digest}}/source.json",
    log:
        "logs/freeze_data/{task}-{digest}.log",
    benchmark:
        "logs/freeze_data/{task}-{digest}.benchmark.tsv"
    localrule: True
    conda:
        "../../envs/run.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        source=lookup(dpath="tasks/{task}/data", within=config),
    message:
        "freezing the items of {wildcards.task} ({params.source})"
    script:
        "../scripts/freeze_data.py"
