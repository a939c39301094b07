#!/usr/bin/env bash
# Run the Prefect worker in a clone of the project at the commit DXAI_COMMIT, beside a Ray node without
# CPUs: a process that starts a training on a cluster has to run on one of its nodes. When either ends,
# both end, and the container is restarted from outside, also when Ray gives up after the 30 seconds that
# it allows a node to start. Arguments are passed to `ray start`.
set -euo pipefail
set -m # each in a group of its own; without it bash starts them ignoring SIGINT, too

[[ ${DXAI_COMMIT:-} =~ ^[0-9a-f]{40}$ ]] || { echo "error: DXAI_COMMIT is '${DXAI_COMMIT:-}', not the full id of a commit" >&2; exit 1; }
project=$PWD/dxai
if [[ ! -d $project/.git ]]; then
    rm -rf "$project.new" # left by an interrupted clone
    git clone --quiet --no-checkout "$DXAI_REPOSITORY" "$project.new"
    mv "$project.new" "$project"
fi
cd "$project"
if [[ $(git rev-parse --verify --quiet HEAD) != "$DXAI_COMMIT" || ! -e prefect.yaml ]]; then
    git cat-file -e "$DXAI_COMMIT^{commit}" 2>/dev/null || git fetch --quiet --tags "$DXAI_REPOSITORY" '+refs/heads/*:refs/remotes/origin/*'
    git checkout --quiet --detach "$DXAI_COMMIT"
fi
mkdir -p .work/prefect
export PREFECT_HOME=$project/.work/prefect
export PYTHONPATH=$project # the command `dxai` finds its code here

# The bucket of MLflow's files and of checkpoints.
python -c 'import s3fs; store = s3fs.S3FileSystem(); store.exists("dxai") or store.mkdir("dxai")'
prefect work-pool create --type process --overwrite dxai-local
prefect work-pool set-concurrency-limit dxai-local 2 # each run has a workspace of its own
prefect --no-prompt deploy --all
python -m infra.deployments # an earlier container's run would keep the slot for ever
python -m infra.alerts || true
python -m dxai.tracking.live || true # nor stay open in MLflow, if that is up

finish() {
    kill -TERM ${ray:-} ${worker:+-"$worker"} 2>/dev/null || true # the worker with its children
    wait
    rm -f "${said:-}"
    sleep 0.2 # for the last lines of Ray's, on their way through `tee`
}
trap finish EXIT
trap 'exit 143' INT TERM
said=$(mktemp)
ray start --address="$RAY_ADDRESS" --num-cpus=0 --object-store-memory=200000000 --block "$@" > >(tee "$said") 2>&1 &
ray=$!
until grep -q "Ray runtime started" "$said"; do # no run may start before its training can
    kill -0 $ray 2>/dev/null || exit 1
    sleep 0.5
done
python -m infra.worker --name "$HOSTNAME" --with-healthcheck &
worker=$!
kill -0 $ray 2>/dev/null || exit 1 # what ended in between `wait -n` may not tell
wait -n
