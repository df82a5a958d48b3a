# What runs read: a model each, and the frozen items of each task.
#
# Needs the config alone; makes <resources>/models/<model>/ and <resources>/data/<task>/{train,heldout}.jsonl.


rule train_model:
    output:
        directory(f"{STUDY.resources}/models/{{model}}"),
    log:
        "logs/train_model/{model}.log",
    benchmark:
        "logs/train_model/{model}.benchmark.tsv"
    conda:
        "../../envs/run.yaml"
    threads: STUDY.engine.threads
    resources:
        mem_mb=2000,
        runtime=30,
    script:
        "../scripts/train_model.py"


rule freeze_data:
    output:
        train=f"{STUDY.resources}/data/{{task}}/train.jsonl",
        heldout=f"{STUDY.resources}/data/{{task}}/heldout.jsonl",
    log:
        "logs/freeze_data/{task}.log",
    benchmark:
        "logs/freeze_data/{task}.benchmark.tsv"
    conda:
        "../../envs/run.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    script:
        "../scripts/freeze_data.py"
