"""The policies of many runs on one frozen base model: adapters, sampling, updating.

`Policy` is the whole interface; each of its two verbs has a module (`sampling`, `updating`), as have the model
(`model`), its adapters (`lora`) and its language of turns and stop tokens (`chat`).
"""
