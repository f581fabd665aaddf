"""Walks through what podid's users do in Azure, with the management SDKs, and prints what it saw as one JSON line.

The environment has ARM, AZURE_TENANT_ID, AZURE_SUBSCRIPTION_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET (an owner), ISSUER, SUBJECT and
ASSERTION_FILE (a token of that issuer for that subject).
"""

import importlib.metadata
import json
import os
import time
import uuid

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.identity import ClientSecretCredential, WorkloadIdentityCredential
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.containerservice import ContainerServiceClient
from azure.mgmt.containerservice.models import (
    ManagedCluster,
    ManagedClusterAgentPoolProfile,
    ManagedClusterIdentity,
    ManagedClusterPodIdentity,
    ManagedClusterPodIdentityProfile,
    UserAssignedIdentity,
)
from azure.mgmt.msi import ManagedServiceIdentityClient
from azure.mgmt.resource.resources import ResourceManagementClient

ARM = os.environ["ARM"]
TENANT = os.environ["AZURE_TENANT_ID"]
SUBSCRIPTION = os.environ["AZURE_SUBSCRIPTION_ID"]
GROUP, IDENTITY = "mgmt", "app-identity"
MACHINES = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/azure-emulator"

owner = ClientSecretCredential(
    TENANT,
    os.environ["AZURE_CLIENT_ID"],
    os.environ["AZURE_CLIENT_SECRET"],
    authority=ARM,
    disable_instance_discovery=True,
)


def client(kind, credential=owner):
    return kind(credential, SUBSCRIPTION, base_url=ARM)


def error(call):
    """What the SDK's error says; none when there is none."""
    try:
        call()
    except HttpResponseError as failure:
        parsed = failure.error
        return {
            "type": type(failure).__name__,
            "status": failure.status_code,
            "code": parsed and parsed.code,
            "message": parsed and parsed.message,
            "detail": parsed and parsed.details and parsed.details[0].code,
        }
    return None


def names(items):
    return sorted(item.name for item in items)


facts = {}
groups = client(ResourceManagementClient).resource_groups
msi = client(ManagedServiceIdentityClient)
rights = client(AuthorizationManagementClient)
machines = client(ComputeManagementClient).virtual_machines

groups.create_or_update(GROUP, {"location": "eastus", "tags": {"made-by": "walk"}})
facts["group"] = groups.get(GROUP).id

identities = msi.user_assigned_identities
made = identities.create_or_update(GROUP, IDENTITY, {"location": "eastus"})
again = identities.create_or_update(GROUP, IDENTITY, {"location": "eastus", "tags": {"again": "yes"}})
read = identities.get(GROUP, IDENTITY)
facts["identity"] = {
    "id": read.id,
    "client_id": read.client_id,
    "principal_id": read.principal_id,
    "tenant_id": read.tenant_id,
    "kept": (made.client_id, made.principal_id) == (again.client_id, again.principal_id) == (read.client_id, read.principal_id),
    "listed": names(identities.list_by_resource_group(GROUP)),
}

credentials = msi.federated_identity_credentials
for name, subject in [("one", os.environ["SUBJECT"]), ("two", "system:serviceaccount:other:app")]:
    body = {"issuer": os.environ["ISSUER"], "subject": subject, "audiences": ["api://AzureADTokenExchange"]}
    credentials.create_or_update(GROUP, IDENTITY, name, body)
one = credentials.get(GROUP, IDENTITY, "one")
facts["credential"] = {"issuer": one.issuer, "subject": one.subject, "audiences": list(one.audiences)}
facts["credentials"] = names(credentials.list(GROUP, IDENTITY))


def federated():
    return WorkloadIdentityCredential(
        tenant_id=TENANT,
        client_id=read.client_id,
        token_file_path=os.environ["ASSERTION_FILE"],
        authority=ARM,
        disable_instance_discovery=True,
    )


# As the identity itself, by its federated credential.
own_machines = client(ComputeManagementClient, federated()).virtual_machines
facts["before_grant"] = error(lambda: list(own_machines.list("azure-emulator")))
role = next(iter(rights.role_definitions.list(MACHINES, filter="roleName eq 'Reader'")))
grant = str(uuid.uuid4())
rights.role_assignments.create(
    MACHINES,
    grant,
    {"role_definition_id": role.id, "principal_id": read.principal_id, "principal_type": "ServicePrincipal"},
)
found = rights.role_assignments.list_for_scope(MACHINES, filter=f"principalId eq '{read.principal_id}'")
facts["grants"] = [item.name == grant and item.role_definition_id.endswith(role.name) for item in found]
facts["granted_twice"] = error(
    lambda: rights.role_assignments.create(
        MACHINES, str(uuid.uuid4()), {"role_definition_id": role.id, "principal_id": read.principal_id}
    )
)
facts["machines"] = names(own_machines.list("azure-emulator"))

# The first answer is 429 with Retry-After.
start = time.monotonic()
facts["throttled"] = {"machines": names(machines.list(GROUP)), "waited_ms": round((time.monotonic() - start) * 1000)}
facts["refused"] = error(lambda: identities.create_or_update(GROUP, "refused", {"location": "eastus"}))

clusters = client(ContainerServiceClient).managed_clusters
body = ManagedCluster(
    location="eastus",
    dns_prefix="walk",
    identity=ManagedClusterIdentity(type="SystemAssigned"),
    agent_pool_profiles=[ManagedClusterAgentPoolProfile(name="nodepool1", count=1, mode="System", vm_size="Standard_B2s")],
    network_profile={"networkPlugin": "azure"},
    pod_identity_profile=ManagedClusterPodIdentityProfile(enabled=True),
)
cluster = clusters.begin_create_or_update(GROUP, "cluster", body).result()
state = cluster.provisioning_state
cluster.pod_identity_profile.user_assigned_identities = [
    ManagedClusterPodIdentity(
        name="app",
        namespace="my-app",
        identity=UserAssignedIdentity(resource_id=read.id, client_id=read.client_id, object_id=read.principal_id),
    )
]
rights.role_assignments.create(
    read.id,
    str(uuid.uuid4()),
    {
        "role_definition_id": next(
            iter(rights.role_definitions.list(read.id, filter="roleName eq 'Managed Identity Operator'"))
        ).id,
        "principal_id": cluster.identity.principal_id,
        "principal_type": "ServicePrincipal",
    },
)
cluster = clusters.begin_create_or_update(GROUP, "cluster", cluster).result()
facts["cluster"] = {
    "state": state,
    "node_group": cluster.node_resource_group,
    "pod_identities": [
        f"{item.namespace}/{item.name} {getattr(item.provisioning_state, 'value', item.provisioning_state)}"
        for item in cluster.pod_identity_profile.user_assigned_identities
    ],
}
clusters.begin_delete(GROUP, "cluster").result()

credentials.delete(GROUP, IDENTITY, "one")
facts["credentials_after"] = names(credentials.list(GROUP, IDENTITY))
try:
    federated().get_token("https://management.azure.com/.default")
    facts["exchange_after"] = None
except ClientAuthenticationError as failure:
    facts["exchange_after"] = {"type": type(failure).__name__, "message": str(failure)}
rights.role_assignments.delete(MACHINES, grant)
identities.delete(GROUP, IDENTITY)
facts["after_delete"] = error(lambda: identities.get(GROUP, IDENTITY))
groups.begin_delete(GROUP).result()
facts["group_after"] = groups.check_existence(GROUP)

with open(os.path.join(os.path.dirname(__file__), "requirements.txt")) as file:
    pinned = [line.split("==")[0] for line in file if line.strip()]
facts["sdk"] = {name: importlib.metadata.version(name) for name in pinned}
print(json.dumps(facts))
