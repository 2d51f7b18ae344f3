#!/usr/bin/env bash
# Create all for the gke overlay in an empty project: network, bucket, registry, cluster, node pools, identities.
# After a failure run it again: it keeps what exists. `cluster.sh delete` deletes all except the bucket and the images.
#
#   PROJECT=my-project ADMINS=203.0.113.7/32 k8s/overlays/gke/cluster.sh
set -euo pipefail
: "${PROJECT:?set PROJECT to the id of a Google Cloud project}"
ZONE=${ZONE:-europe-west4-a}
REGION=${ZONE%-*}
NAME=previts
BUCKET=gs://$PROJECT-previts
CONTROL_PLANE=172.16.0.32/28
NODES=previts-nodes@$PROJECT.iam.gserviceaccount.com
HERE=$(cd "$(dirname "$0")" && pwd)

google() { gcloud --project "$PROJECT" --quiet "$@"; }

# Create a resource unless it exists: `ensure NOUN... -- NAME... -- options of create`.
ensure() {
  local noun=() which=() part=0
  while [ $# -gt 0 ]; do
    case $1 in --) part=$((part + 1)); shift; [ "$part" -lt 2 ] || break; continue ;; esac
    if [ "$part" -eq 0 ]; then noun+=("$1"); else which+=("$1"); fi
    shift
  done
  google "${noun[@]}" describe "${which[@]}" > /dev/null 2>&1 || google "${noun[@]}" create "${which[@]}" "$@"
}

if [ "${1:-}" = delete ]; then
  google container clusters delete "$NAME" --zone "$ZONE" || true
  google compute routers delete "$NAME" --region "$REGION" || true
  google dns record-sets delete '*.googleapis.com.' --zone "$NAME" --type CNAME || true
  google dns record-sets delete private.googleapis.com. --zone "$NAME" --type A || true
  google dns managed-zones delete "$NAME" || true
  google compute networks subnets delete "$NAME" --region "$REGION" || true
  google compute networks delete "$NAME" || true
  google iam workload-identity-pools delete "$NAME" --location global || true
  google iam service-accounts delete "$NODES" || true
  echo "Kept: $BUCKET and the images (gcloud artifacts repositories delete $NAME --location $REGION)."
  exit
fi

# The API server answers these addresses and the nodes, and no others.
: "${ADMINS:?set ADMINS to the public addresses from which you use kubectl, as CIDRs with commas: 203.0.113.7/32}"
case ",$ADMINS," in
  *,0.0.0.0/*|*,::/*) echo "ADMINS=$ADMINS opens the API server to the whole internet; name your own addresses" >&2; exit 2 ;;
esac
ACCESS=(--enable-master-authorized-networks --master-authorized-networks "$ADMINS")

google services enable artifactregistry.googleapis.com container.googleapis.com dns.googleapis.com \
  iam.googleapis.com iamcredentials.googleapis.com storage.googleapis.com sts.googleapis.com
NUMBER=$(google projects describe "$PROJECT" --format 'value(projectNumber)')

# Nodes have no public address. They reach Google by its private addresses and the internet by NAT.
ensure compute networks -- "$NAME" -- --subnet-mode custom
ensure compute networks subnets -- "$NAME" --region "$REGION" -- --network "$NAME" --range 10.10.0.0/20 \
  --secondary-range pods=10.16.0.0/14,services=10.12.0.0/20 --enable-private-ip-google-access
ensure compute routers -- "$NAME" --region "$REGION" -- --network "$NAME"
ensure compute routers nats -- "$NAME" --router "$NAME" --region "$REGION" -- --auto-allocate-nat-external-ips \
  --nat-all-subnet-ip-ranges
ensure dns managed-zones -- "$NAME" -- --dns-name googleapis.com. --visibility private --networks "$NAME" \
  --description "Google's services by their private addresses"
ensure dns record-sets -- private.googleapis.com. --zone "$NAME" --type A -- --ttl 300 \
  --rrdatas 199.36.153.8,199.36.153.9,199.36.153.10,199.36.153.11
ensure dns record-sets -- '*.googleapis.com.' --zone "$NAME" --type CNAME -- --ttl 300 \
  --rrdatas private.googleapis.com.

google storage buckets describe "$BUCKET" > /dev/null 2>&1 || google storage buckets create "$BUCKET" \
  --location "$REGION" --uniform-bucket-level-access --public-access-prevention
ensure artifacts repositories -- "$NAME" --location "$REGION" -- --repository-format docker

# Nodes can only write logs and pull images.
google iam service-accounts describe "$NODES" > /dev/null 2>&1 || google iam service-accounts create previts-nodes
for role in roles/container.defaultNodeServiceAccount roles/artifactregistry.reader; do
  google projects add-iam-policy-binding "$PROJECT" --member "serviceAccount:$NODES" --role "$role" \
    --condition None > /dev/null
done

# Dataplane V2 enforces the network policies.
ensure container clusters -- "$NAME" --zone "$ZONE" -- --release-channel regular --network "$NAME" \
  --subnetwork "$NAME" --cluster-secondary-range-name pods --services-secondary-range-name services \
  --enable-ip-alias --enable-private-nodes --master-ipv4-cidr "$CONTROL_PLANE" --enable-dataplane-v2 "${ACCESS[@]}" \
  --workload-pool "$PROJECT.svc.id.goog" --enable-shielded-nodes --service-account "$NODES" \
  --machine-type e2-standard-4 --num-nodes 2 --disk-size 100
google container clusters update "$NAME" --zone "$ZONE" "${ACCESS[@]}" --no-enable-google-cloud-access

# pool NAME MACHINE MOST options...: scales from no node to MOST nodes. GKE taints nodes with GPUs itself.
pool() {
  local name=$1 machine=$2 most=$3
  shift 3
  ensure container node-pools -- "$name" --cluster "$NAME" --zone "$ZONE" -- --machine-type "$machine" --num-nodes 0 \
    --enable-autoscaling --min-nodes 0 --max-nodes "$most" --service-account "$NODES" --shielded-secure-boot \
    --workload-metadata GKE_METADATA "$@"
}
SPOT=(--spot --node-taints cloud.google.com/gke-spot=true:NoSchedule)
pool cpu n2d-standard-32 16 --disk-size 300
pool cpu-spot n2d-standard-32 16 --disk-size 300 "${SPOT[@]}"
pool l4 g2-standard-16 8 --disk-size 200 --accelerator type=nvidia-l4,count=1,gpu-driver-version=latest
pool a100 a2-highgpu-8g 2 --disk-size 300 --accelerator type=nvidia-tesla-a100,count=8,gpu-driver-version=latest
pool a100-spot a2-highgpu-8g 2 --disk-size 300 "${SPOT[@]}" \
  --accelerator type=nvidia-tesla-a100,count=8,gpu-driver-version=latest

# Google accepts a token of the cluster only from the account of the download step, and only if the token is for Google.
POOLS=principal://iam.googleapis.com/projects/$NUMBER/locations/global/workloadIdentityPools
ISSUER=https://container.googleapis.com/v1/projects/$PROJECT/locations/$ZONE/clusters/$NAME
DOWNLOAD=system:serviceaccount:previts:previts-download
PROVIDER=(cluster --workload-identity-pool "$NAME" --location global)
CLAIMS=(--issuer-uri "$ISSUER" --attribute-mapping google.subject=assertion.sub
  --attribute-condition "assertion.sub == '$DOWNLOAD'" --allowed-audiences
  "https://iam.googleapis.com/projects/$NUMBER/locations/global/workloadIdentityPools/$NAME/providers/cluster")
ensure iam workload-identity-pools -- "$NAME" --location global --
if google iam workload-identity-pools providers describe "${PROVIDER[@]}" > /dev/null 2>&1; then
  google iam workload-identity-pools providers update-oidc "${PROVIDER[@]}" "${CLAIMS[@]}"
else
  google iam workload-identity-pools providers create-oidc "${PROVIDER[@]}" "${CLAIMS[@]}"
fi

# allow MEMBER ROLE CONDITION: gives rights in the bucket, limited to the objects for which the condition holds.
allow() {
  google storage buckets add-iam-policy-binding "$BUCKET" --member "$1" --role "$2" --condition "$3" > /dev/null
}
OBJECTS=projects/_/buckets/${BUCKET#gs://}/objects
# Steps and jobs get their identity from the metadata server of their node.
METADATA=$POOLS/$PROJECT.svc.id.goog/subject/ns/previts/sa
allow "$METADATA/previts-steps" roles/storage.objectUser None
allow "$METADATA/previts-training" roles/storage.objectUser None
allow "$METADATA/mlflow" roles/storage.legacyBucketReader None
allow "$METADATA/mlflow" roles/storage.objectUser \
  "title=artifacts,expression=resource.name.startsWith('$OBJECTS/mlflow/')"
# The download step lists names, and writes only below a folder `videos`. It reads what it stored, the crawls, the lists of
# crawls of a run (ROOT/crawls/), and the withdrawals (ROOT/withdrawn/).
allow "$POOLS/$NAME/subject/$DOWNLOAD" roles/storage.legacyBucketReader None
for folder in crawls withdrawn; do
  allow "$POOLS/$NAME/subject/$DOWNLOAD" roles/storage.objectViewer "title=$folder,expression=\
resource.name.startsWith('$OBJECTS/') && resource.name.extract('/$folder/{name}') != ''"
done
allow "$POOLS/$NAME/subject/$DOWNLOAD" roles/storage.objectUser \
  "title=videos,expression=resource.name.startsWith('$OBJECTS/') && resource.name.extract('/videos/{name}') != ''"

sed -i "s/PROJECT_NUMBER/$NUMBER/" "$HERE/credentials.json"
sed -i "s|artifacts: .*|artifacts: $BUCKET/mlflow|; s|control-plane: .*|control-plane: $CONTROL_PLANE|" "$HERE/settings.yaml"
gcloud container clusters get-credentials "$NAME" --zone "$ZONE" --project "$PROJECT"
echo "Push images to $REGION-docker.pkg.dev/$PROJECT/$NAME and write results to $BUCKET."
