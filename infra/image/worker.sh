#!/usr/bin/env bash
# Run the Prefect worker in a clone of the project, beside a Ray node without CPUs: a process that
# starts a training on a cluster has to run on one of its nodes. When either ends, both end, and the
# container is restarted from outside. Arguments are passed to `ray start`.
set -euo pipefail
set -m # without it bash starts them ignoring SIGINT, which the worker uses to end itself

project=$PWD/dxai
if [[ ! -d $project/.git ]]; then
    rm -rf "$project.new" # left by an interrupted clone
    git clone --quiet "$DXAI_REPOSITORY" "$project.new"
    mv "$project.new" "$project"
fi
cd "$project"
mkdir -p .work/prefect
export PREFECT_HOME=$project/.work/prefect
export PYTHONPATH=$project # the command `dxai` finds its code here

prefect work-pool create --type process --overwrite dxai-local
prefect work-pool set-concurrency-limit dxai-local 1 # a run owns the folder
prefect --no-prompt deploy --all
python -m infra.deployments # an earlier container's run would keep the slot for ever
python -m dxai.tracking.live || true # nor stay open in MLflow, if that is up

finish() {
    kill -TERM $(jobs -rp) 2>/dev/null || true
    wait
}
trap finish EXIT
trap 'exit 143' INT TERM
ray start --address="$RAY_ADDRESS" --num-cpus=0 --object-store-memory=200000000 --block "$@" &
prefect worker start --pool dxai-local --type process --name "$HOSTNAME" --with-healthcheck &
wait -n
