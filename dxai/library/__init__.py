"""The method as a library: fit an explainer, explain any image, evaluate; without a pipeline.

It writes nothing but the explainer's folder and needs neither params.yaml nor servers.
"""
