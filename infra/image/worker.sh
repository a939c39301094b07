#!/usr/bin/env bash
# The Prefect worker in a clone of the project, beside a node of the Ray cluster without processors:
# who starts a training on a cluster has to be on a node of it. When either ends, both do, and
# whoever keeps the container starts it again. Arguments are passed to `ray start`.
set -euo pipefail
set -m # or bash would start them deaf to SIGINT, by which the worker ends itself

project=$PWD/dxai
if [[ ! -d $project/.git ]]; then
    rm -rf "$project.new" # of a clone that was cut off
    git clone --quiet "$DXAI_REPOSITORY" "$project.new"
    mv "$project.new" "$project"
fi
cd "$project"
mkdir -p .work/prefect
export PREFECT_HOME=$project/.work/prefect
export PYTHONPATH=$project # for the command `dxai`, whose code is here

prefect work-pool create --type process --overwrite dxai-local
prefect work-pool set-concurrency-limit dxai-local 1 # a run owns the folder
prefect --no-prompt deploy --all

finish() {
    kill -TERM $(jobs -rp) 2>/dev/null || true
    wait
}
trap finish EXIT
trap 'exit 143' INT TERM
ray start --address="$RAY_ADDRESS" --num-cpus=0 --object-store-memory=200000000 --block "$@" &
prefect worker start --pool dxai-local --type process --name "$HOSTNAME" --with-healthcheck &
wait -n
