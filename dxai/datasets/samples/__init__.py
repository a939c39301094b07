"""Small synthetic datasets in the native layouts, so that every layout runs without a download.

``render_sample(folder, options, seed)`` writes one of them to `folder`, which need not exist;
`seed` keys every random draw.
"""
