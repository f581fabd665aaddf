#!/usr/bin/env bash
# The tutorial of AAD pod-managed identity, line by line, with the real az and the real kubectl. Lines are as the page has
# them; where the page is wrong, "corrected" says how. `cargo xtask e2e az` runs it; by hand: start `podid-sandbox up`,
# then `eval "$(podid-sandbox env)"`, set AZURE_CONFIG_DIR and KUBECONFIG to files of your own, and run this.
set -euo pipefail
: "${AZURE_RESOURCE_MANAGER_ENDPOINT:?run: eval \"\$(podid-sandbox env)\"}"
SUBSCRIPTION_ID=$AZURE_SUBSCRIPTION_ID
# az cannot ask Microsoft's login service about an authority that it does not know.
export AZURE_CORE_INSTANCE_DISCOVERY=false
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

started=$SECONDS
# Each command is shown with the seconds since the start, then run.
show() { printf '\n[%3ds] $ %s\n' $((SECONDS - started)) "$*" >&2; }
run() { show "$*"; "$@"; }
# What must be refused, with these words.
refused() {
  local words=$1 said; shift; show "$* (must be refused)"
  if said=$("$@" 2>&1); then echo "not refused: $said" >&2; exit 1; fi
  [[ $said == *"$words"* ]] || { echo "refused, but not with \"$words\": $said" >&2; exit 1; }
}
same() { [[ $1 == "$2" ]] || { echo "expected \"$2\", found \"$1\"" >&2; exit 1; }; }

# The page's pod with its placeholders replaced.
pod() {
  sed -e "s|POD_IDENTITY_NAME|$1|; s|SUBSCRIPTION_ID|$SUBSCRIPTION_ID|; s|IDENTITY_CLIENT_ID|$2|; s|IDENTITY_RESOURCE_GROUP|$IDENTITY_RESOURCE_GROUP|" \
    "$here/demo.yaml" >"$work/demo.yaml"
}
# Follows the pod's log until the page's four lines have come.
four_lines() {
  local client_id=$1 endpoint='msiEndpoint(http://169.254.169.254/metadata/identity/oauth2/token)' line seen=0
  local -a wanted=(
    "successfully doARMOperations vm count 0"
    "successfully acquired a token using the MSI, $endpoint"
    "successfully acquired a token, userAssignedID MSI, $endpoint clientID($client_id)"
    "successfully made GET on instance metadata"
  )
  run kubectl wait pod demo --for=jsonpath='{.status.phase}'=Running --timeout=60s --namespace "$POD_IDENTITY_NAMESPACE"
  show "kubectl logs demo --follow --namespace $POD_IDENTITY_NAMESPACE"
  while IFS= read -r line; do
    echo "$line"
    [[ $line == *"${wanted[$seen]}"* ]] && seen=$((seen + 1))
    [[ $seen -eq 4 ]] && break
  done < <(timeout 60 kubectl logs demo --follow --namespace "$POD_IDENTITY_NAMESPACE")
  [[ $seen -eq 4 ]] || { echo "line $((seen + 1)) did not come: ${wanted[$seen]}" >&2; exit 1; }
}

echo "== where az finds this Azure"
run az cloud register -n podid --endpoint-resource-manager "$AZURE_RESOURCE_MANAGER_ENDPOINT"
run az cloud set -n podid
show "az login --service-principal"
az login --service-principal -u "$AZURE_CLIENT_ID" -p "$AZURE_CLIENT_SECRET" --tenant "$AZURE_TENANT_ID" -o none

echo "== before you begin"
run az feature register --name EnablePodIdentityPreview --namespace Microsoft.ContainerService -o none
# corrected: the page forgets this, without which the feature does not take effect.
run az provider register --namespace Microsoft.ContainerService --wait
run az extension add --name aks-preview
run az extension update --name aks-preview

echo "== a cluster with Azure CNI"
run az group create --name myResourceGroup --location eastus -o none
run az aks create -g myResourceGroup -n myAKSCluster --enable-pod-identity --network-plugin azure --generate-ssh-keys -o none
run az aks get-credentials --resource-group myResourceGroup --name myAKSCluster
export MY_RESOURCE_GROUP=myResourceGroup MY_CLUSTER=myAKSCluster
run az aks update -g $MY_RESOURCE_GROUP -n $MY_CLUSTER --enable-pod-identity --network-plugin azure -o none

echo "== an identity"
run az group create --name myIdentityResourceGroup --location eastus -o none
export IDENTITY_RESOURCE_GROUP="myIdentityResourceGroup"
export IDENTITY_NAME="application-identity"
run az identity create --resource-group ${IDENTITY_RESOURCE_GROUP} --name ${IDENTITY_NAME} -o none
export IDENTITY_CLIENT_ID="$(az identity show -g ${IDENTITY_RESOURCE_GROUP} -n ${IDENTITY_NAME} --query clientId -otsv)"
export IDENTITY_RESOURCE_ID="$(az identity show -g ${IDENTITY_RESOURCE_GROUP} -n ${IDENTITY_NAME} --query id -otsv)"

echo "== its rights"
NODE_GROUP=$(az aks show -g myResourceGroup -n myAKSCluster --query nodeResourceGroup -o tsv)
NODES_RESOURCE_ID=$(az group show -n $NODE_GROUP -o tsv --query "id")
run az role assignment create --role "Managed Identity Operator" --assignee "$IDENTITY_CLIENT_ID" --scope $NODES_RESOURCE_ID -o none

echo "== a pod identity"
export POD_IDENTITY_NAME="my-pod-identity"
export POD_IDENTITY_NAMESPACE="my-app"
run az aks pod-identity add --resource-group myResourceGroup --cluster-name myAKSCluster --namespace ${POD_IDENTITY_NAMESPACE}  --name ${POD_IDENTITY_NAME} --identity-resource-id ${IDENTITY_RESOURCE_ID} -o none
run az aks pod-identity list --resource-group myResourceGroup --cluster-name myAKSCluster -o table
run kubectl get azurepodidentityexception aks-addon-exception --namespace kube-system

echo "== the sample application"
pod "$POD_IDENTITY_NAME" "$IDENTITY_CLIENT_ID"
run kubectl apply -f "$work/demo.yaml" --namespace $POD_IDENTITY_NAMESPACE
four_lines "$IDENTITY_CLIENT_ID"
run kubectl delete pod demo --namespace $POD_IDENTITY_NAMESPACE

echo "== several identities"
run az group create --name myIdentityResourceGroup --location eastus -o none
export IDENTITY_NAME_1="application-identity_1"
run az identity create --resource-group ${IDENTITY_RESOURCE_GROUP} --name ${IDENTITY_NAME_1} -o none
export IDENTITY_NAME_2="application-identity_2"
run az identity create --resource-group ${IDENTITY_RESOURCE_GROUP} --name ${IDENTITY_NAME_2} -o none
# corrected: the page exports IDENTITY_CLIENT_ID and IDENTITY_RESOURCE_ID twice and then uses the numbered names.
export IDENTITY_CLIENT_ID_1="$(az identity show -g ${IDENTITY_RESOURCE_GROUP} -n ${IDENTITY_NAME_1} --query clientId -otsv)"
export IDENTITY_RESOURCE_ID_1="$(az identity show -g ${IDENTITY_RESOURCE_GROUP} -n ${IDENTITY_NAME_1} --query id -otsv)"
export IDENTITY_CLIENT_ID_2="$(az identity show -g ${IDENTITY_RESOURCE_GROUP} -n ${IDENTITY_NAME_2} --query clientId -otsv)"
export IDENTITY_RESOURCE_ID_2="$(az identity show -g ${IDENTITY_RESOURCE_GROUP} -n ${IDENTITY_NAME_2} --query id -otsv)"
run az role assignment create --role "Reader" --assignee "$IDENTITY_CLIENT_ID_1" --scope $NODES_RESOURCE_ID -o none
run az role assignment create --role "Reader" --assignee "$IDENTITY_CLIENT_ID_2" --scope $NODES_RESOURCE_ID -o none
# corrected: the page gives both pod identities one name, so the second would be the first again.
run az aks pod-identity add --resource-group myResourceGroup --cluster-name myAKSCluster --namespace ${POD_IDENTITY_NAMESPACE}  --name ${POD_IDENTITY_NAME}-1 --identity-resource-id ${IDENTITY_RESOURCE_ID_1} --binding-selector foo -o none
run az aks pod-identity add --resource-group myResourceGroup --cluster-name myAKSCluster --namespace ${POD_IDENTITY_NAMESPACE}  --name ${POD_IDENTITY_NAME}-2 --identity-resource-id ${IDENTITY_RESOURCE_ID_2} --binding-selector foo -o none
for client_id in "$IDENTITY_CLIENT_ID_1" "$IDENTITY_CLIENT_ID_2"; do
  pod foo "$client_id"
  run kubectl apply -f "$work/demo.yaml" --namespace $POD_IDENTITY_NAMESPACE
  four_lines "$client_id"
  run kubectl delete pod demo --namespace $POD_IDENTITY_NAMESPACE
done

echo "== exceptions"
run az aks pod-identity exception add -g myResourceGroup --cluster-name myAKSCluster --namespace $POD_IDENTITY_NAMESPACE --name ex1 --pod-labels app=x -o none
run az aks pod-identity exception update -g myResourceGroup --cluster-name myAKSCluster --namespace $POD_IDENTITY_NAMESPACE --name ex1 --pod-labels app=y -o none
same "$(kubectl get azurepodidentityexception ex1 --namespace $POD_IDENTITY_NAMESPACE -o jsonpath='{.spec.podLabels.app}')" y
run az aks pod-identity exception delete -g myResourceGroup --cluster-name myAKSCluster --namespace $POD_IDENTITY_NAMESPACE --name ex1 -o none
refused "pod identity exception my-app/ex1 not found" az aks pod-identity exception update -g myResourceGroup --cluster-name myAKSCluster --namespace $POD_IDENTITY_NAMESPACE --name ex1 --pod-labels app=z

echo "== clean up"
for name in "$POD_IDENTITY_NAME" "$POD_IDENTITY_NAME-1" "$POD_IDENTITY_NAME-2"; do
  run az aks pod-identity delete --name "$name" --namespace ${POD_IDENTITY_NAMESPACE} --resource-group myResourceGroup --cluster-name myAKSCluster -o none
done
same "$(kubectl get azureidentity,azureidentitybinding --namespace $POD_IDENTITY_NAMESPACE -o name)" ""
for name in "$IDENTITY_NAME" "$IDENTITY_NAME_1" "$IDENTITY_NAME_2"; do
  run az identity delete -g ${IDENTITY_RESOURCE_GROUP} -n "$name"
done
run az aks delete -g myResourceGroup -n myAKSCluster --yes

echo "== the same with kubenet"
refused "--enable-pod-identity-with-kubenet is required" az aks create -g $MY_RESOURCE_GROUP -n $MY_CLUSTER --enable-pod-identity --network-plugin kubenet
run az aks create -g $MY_RESOURCE_GROUP -n $MY_CLUSTER --enable-pod-identity --enable-pod-identity-with-kubenet --generate-ssh-keys -o none
run az aks update -g $MY_RESOURCE_GROUP -n $MY_CLUSTER --enable-pod-identity --enable-pod-identity-with-kubenet -o none
same "$(az aks show -g $MY_RESOURCE_GROUP -n $MY_CLUSTER --query podIdentityProfile.allowNetworkPluginKubenet -o tsv)" true
run az aks delete -g $MY_RESOURCE_GROUP -n $MY_CLUSTER --yes
printf '\nthe tutorial ran in %d seconds\n' $((SECONDS - started))
