"""What the commands do. There is no sub-resource for pod identities: each command reads the cluster, edits its
podIdentityProfile and writes the whole of it back.
"""

import functools
import inspect
import time
import uuid

from azure.cli.command_modules.acs import custom as core
from azure.cli.core.azclierror import (
    ArgumentUsageError,
    AzCLIError,
    MutuallyExclusiveArgumentError,
    RequiredArgumentMissingError,
)
from azure.cli.core.profiles import ResourceType
from azure.cli.core.util import sdk_no_wait
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.mgmt.core.tools import is_valid_resource_id, parse_resource_id
from knack.log import get_logger

logger = get_logger(__name__)

# https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/identity#managed-identity-operator
OPERATOR_NAME = "Managed Identity Operator"
OPERATOR_ID = "f1a07417-d97a-45cb-824c-7a7467783830"
GRANT_TRIES = 10
PROPAGATION_SECONDS = 30

NEEDS_KUBENET_CONSENT = (
    "--enable-pod-identity-with-kubenet is required for enabling pod identity addon when using Kubenet network plugin"
)


# === create and update: the core's commands with three more flags ===


class WithProfile:
    """The core's client of managed clusters, except that each cluster is written with an edited profile."""

    def __init__(self, client, edit):
        self._client = client
        self._edit = edit

    def __getattr__(self, name):
        return getattr(self._client, name)

    def begin_create_or_update(self, resource_group_name, resource_name, parameters, **kwargs):
        self._edit(parameters)
        return self._client.begin_create_or_update(resource_group_name, resource_name, parameters, **kwargs)


def with_flags(command, *flags):
    """Gives a function the core command's signature and three flags more, so that az parses all of them."""

    def decorate(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            return function(*args, **kwargs)

        own = inspect.signature(command)
        more = [inspect.Parameter(flag, inspect.Parameter.KEYWORD_ONLY, default=False) for flag in flags]
        fixed = [parameter for parameter in own.parameters.values() if parameter.kind != parameter.VAR_KEYWORD]
        call.__signature__ = own.replace(parameters=[*fixed, *more])
        return call

    return decorate


@with_flags(core.aks_create, "enable_pod_identity", "enable_pod_identity_with_kubenet")
def aks_create(cmd, client, **flags):
    """Create a cluster."""
    enable = flags.pop("enable_pod_identity", False)
    consent = flags.pop("enable_pod_identity_with_kubenet", False)
    if not enable:
        return core.aks_create(cmd, client, **flags)
    if flags.get("service_principal") or flags.get("client_secret"):
        raise RequiredArgumentMissingError(
            "--enable-pod-identity can only be specified when --enable-managed-identity is specified"
        )
    # Without a network plugin the service chooses, and in the tutorial's days it chose kubenet.
    if (flags.get("network_plugin") or "kubenet") == "kubenet" and not consent:
        raise RequiredArgumentMissingError(NEEDS_KUBENET_CONSENT)
    models = models_of(cmd)

    def edit(cluster):
        profile = models.ManagedClusterPodIdentityProfile(enabled=True)
        if consent:
            profile.allow_network_plugin_kubenet = True
        cluster.pod_identity_profile = profile

    return core.aks_create(cmd, WithProfile(client, edit), **flags)


@with_flags(core.aks_update, "enable_pod_identity", "enable_pod_identity_with_kubenet", "disable_pod_identity")
def aks_update(cmd, client, **flags):
    """Update a cluster."""
    enable = flags.pop("enable_pod_identity", False)
    consent = flags.pop("enable_pod_identity_with_kubenet", False)
    disable = flags.pop("disable_pod_identity", False)
    if enable and disable:
        raise MutuallyExclusiveArgumentError(
            "Cannot specify --enable-pod-identity and --disable-pod-identity at the same time."
        )
    if not enable and not disable:
        return core.aks_update(cmd, client, **flags)
    models = models_of(cmd)
    cluster = client.get(flags["resource_group_name"], flags["name"])
    if enable:
        check_enable(cluster, consent)

    def edit(cluster):
        profile = cluster.pod_identity_profile
        if disable:
            cluster.pod_identity_profile = models.ManagedClusterPodIdentityProfile(enabled=False)
        elif profile is None or not profile.enabled:
            cluster.pod_identity_profile = models.ManagedClusterPodIdentityProfile(
                enabled=True, user_assigned_identities=[], user_assigned_identity_exceptions=[]
            )
        if consent:
            cluster.pod_identity_profile.allow_network_plugin_kubenet = True

    defaults = inspect.signature(core.aks_update).parameters
    apart = ("cmd", "client", "resource_group_name", "name", "no_wait", "yes", "aks_custom_headers")
    changes_more = any(
        value != defaults[name].default for name, value in flags.items() if name in defaults and name not in apart
    )
    if changes_more:
        return core.aks_update(cmd, WithProfile(client, edit), **flags)
    # The core asks whether to reconcile when none of its own flags is given.
    edit(cluster)
    return put(client, flags["resource_group_name"], flags["name"], cluster, flags.get("no_wait", False))


def check_enable(cluster, consent):
    """Refuses what the service would refuse, before anything is sent."""
    if cluster.identity is None or not cluster.identity.type:
        raise ArgumentUsageError("--enable-pod-identity can only be specified for cluster enabled managed identity")
    plugin = cluster.network_profile.network_plugin if cluster.network_profile else None
    if str(getattr(plugin, "value", plugin)).lower() == "kubenet" and not consent:
        raise RequiredArgumentMissingError(NEEDS_KUBENET_CONSENT)


# === pod identities ===


def pod_identity_add(
    cmd,
    client,
    resource_group_name,
    cluster_name,
    namespace,
    identity_resource_id,
    name=None,
    binding_selector=None,
    no_wait=False,
    aks_custom_headers=None,
):
    """Add a pod identity."""
    models = models_of(cmd)
    cluster = enabled_cluster(client, resource_group_name, cluster_name)
    identity = managed_identity(cmd, identity_resource_id)
    grant_operator(cmd, cluster, identity)
    entry = models.ManagedClusterPodIdentity(
        name=name or "",
        namespace=namespace,
        identity=models.UserAssignedIdentity(
            resource_id=identity.id, client_id=identity.client_id, object_id=identity.principal_id
        ),
    )
    if binding_selector is not None:
        entry.binding_selector = binding_selector
    profile = cluster.pod_identity_profile
    profile.user_assigned_identities = [*(profile.user_assigned_identities or []), entry]
    return put(client, resource_group_name, cluster_name, cluster, no_wait, aks_custom_headers)


def pod_identity_delete(
    cmd, client, resource_group_name, cluster_name, namespace, name, no_wait=False, aks_custom_headers=None
):
    """Remove a pod identity."""
    cluster = enabled_cluster(client, resource_group_name, cluster_name)
    profile = cluster.pod_identity_profile
    profile.user_assigned_identities = without(profile.user_assigned_identities, namespace, name)
    return put(client, resource_group_name, cluster_name, cluster, no_wait, aks_custom_headers)


def pod_identity_list(cmd, client, resource_group_name, cluster_name):
    """Show the cluster with its pod identities."""
    return core.aks_show(cmd, client, resource_group_name, cluster_name)


def exception_add(
    cmd, client, resource_group_name, cluster_name, namespace, pod_labels, name=None, no_wait=False, aks_custom_headers=None
):
    """Add an exception."""
    models = models_of(cmd)
    cluster = enabled_cluster(client, resource_group_name, cluster_name)
    entry = models.ManagedClusterPodIdentityException(name=name or "", namespace=namespace, pod_labels=pod_labels)
    profile = cluster.pod_identity_profile
    profile.user_assigned_identity_exceptions = [*(profile.user_assigned_identity_exceptions or []), entry]
    return put(client, resource_group_name, cluster_name, cluster, no_wait, aks_custom_headers)


def exception_delete(
    cmd, client, resource_group_name, cluster_name, namespace, name, no_wait=False, aks_custom_headers=None
):
    """Remove an exception."""
    cluster = enabled_cluster(client, resource_group_name, cluster_name)
    profile = cluster.pod_identity_profile
    profile.user_assigned_identity_exceptions = without(profile.user_assigned_identity_exceptions, namespace, name)
    return put(client, resource_group_name, cluster_name, cluster, no_wait, aks_custom_headers)


def exception_update(
    cmd, client, resource_group_name, cluster_name, namespace, name, pod_labels, no_wait=False, aks_custom_headers=None
):
    """Change the labels of an exception."""
    cluster = enabled_cluster(client, resource_group_name, cluster_name)
    entries = cluster.pod_identity_profile.user_assigned_identity_exceptions or []
    found = [entry for entry in entries if entry.name == name and entry.namespace == namespace]
    if not found:
        raise AzCLIError(f"pod identity exception {namespace}/{name} not found")
    for entry in found:
        entry.pod_labels = pod_labels
    return put(client, resource_group_name, cluster_name, cluster, no_wait, aks_custom_headers)


def exception_list(cmd, client, resource_group_name, cluster_name):
    """Show the cluster with its exceptions."""
    return core.aks_show(cmd, client, resource_group_name, cluster_name)


# === what they share ===


class Models:
    """The models of an API, by name, in the version that the CLI speaks."""

    def __init__(self, cmd, resource_type, operation_group):
        self._find = functools.partial(cmd.get_models, resource_type=resource_type, operation_group=operation_group)

    def __getattr__(self, name):
        return self._find(name)


def models_of(cmd):
    return Models(cmd, ResourceType.MGMT_CONTAINERSERVICE, "managed_clusters")


def enabled_cluster(client, resource_group_name, cluster_name):
    """The cluster, if pod identity is enabled on it."""
    cluster = client.get(resource_group_name, cluster_name)
    profile = cluster.pod_identity_profile
    if profile is None or not profile.enabled:
        raise AzCLIError(
            "The pod identity addon is not enabled for this managed cluster yet.\n"
            'To enable, run "az aks update --enable-pod-identity"'
        )
    for entry in profile.user_assigned_identity_exceptions or []:
        if entry.pod_labels is None:
            entry.pod_labels = {}
    return cluster


def without(entries, namespace, name):
    return [entry for entry in entries or [] if not (entry.name == name and entry.namespace == namespace)]


def put(client, resource_group_name, cluster_name, cluster, no_wait, aks_custom_headers=None):
    headers = {}
    for item in (aks_custom_headers or "").split(","):
        key, sign, value = item.partition("=")
        if sign:
            headers[key.strip()] = value.strip()
    return sdk_no_wait(
        no_wait, client.begin_create_or_update, resource_group_name, cluster_name, cluster, headers=headers
    )


def managed_identity(cmd, resource_id):
    """The managed identity of this id, of whatever subscription."""
    from azure.cli.core.commands.client_factory import get_mgmt_service_client
    from azure.mgmt.msi import ManagedServiceIdentityClient

    lowered = resource_id.lower()
    parts = parse_resource_id(lowered) if is_valid_resource_id(lowered) else {}
    if parts.get("type") != "userassignedidentities" or not parts.get("name"):
        raise AzCLIError(f"Cannot parse identity name from provided resource id {resource_id}.")
    client = get_mgmt_service_client(
        cmd.cli_ctx, ManagedServiceIdentityClient, subscription_id=parts["subscription"]
    )
    try:
        return client.user_assigned_identities.get(parts["resource_group"], parts["name"])
    except ResourceNotFoundError as error:
        raise AzCLIError(f"Identity {lowered} not found.") from error


def cluster_principal(cluster):
    """Object id of the identity that the cluster acts with."""
    identity = cluster.identity
    kind = str(getattr(identity.type, "value", identity.type)).lower() if identity else None
    if kind == "systemassigned":
        return identity.principal_id
    if kind == "userassigned":
        for assigned in (identity.user_assigned_identities or {}).values():
            return assigned.principal_id
        raise AzCLIError("unable to resolve cluster identity")
    if kind is None:
        raise AzCLIError("unable to resolve cluster identity")
    raise AzCLIError(f"unsupported identity type: {kind}")


def grant_operator(cmd, cluster, identity):
    """Lets the cluster assign the identity to its nodes, unless it may already."""
    from azure.cli.core.commands.client_factory import get_mgmt_service_client

    principal = cluster_principal(cluster)
    scope = identity.id.lower()
    client = get_mgmt_service_client(cmd.cli_ctx, ResourceType.MGMT_AUTHORIZATION)
    found = client.role_assignments.list_for_scope(scope, filter=f"atScope() and assignedTo('{principal}')")
    for assignment in found:
        same_role = assignment.role_definition_id.lower().endswith(OPERATOR_ID)
        if same_role and assignment.principal_id == principal and scope.startswith(assignment.scope.lower()):
            return
    definitions = list(client.role_definitions.list(scope, filter=f"roleName eq '{OPERATOR_NAME}'"))
    if not definitions:
        raise AzCLIError(f"Role '{OPERATOR_NAME}' doesn't exist.")
    models = Models(cmd, ResourceType.MGMT_AUTHORIZATION, "role_assignments")
    wanted = models.RoleAssignmentCreateParameters(
        role_definition_id=definitions[0].id, principal_id=principal, principal_type="ServicePrincipal"
    )
    logger.warning("Granting %s on %s to the cluster's identity %s.", OPERATOR_NAME, identity.id, principal)
    for attempt in range(1, GRANT_TRIES + 1):
        try:
            client.role_assignments.create(scope, str(uuid.uuid4()), wanted)
            break
        except ResourceExistsError:
            return
        except HttpResponseError as error:
            # A principal that was made a moment ago is not known everywhere; the reason is said each time.
            logger.warning("Try %s of %s failed: %s", attempt, GRANT_TRIES, error.message)
            if attempt == GRANT_TRIES:
                raise AzCLIError("Could not grant Managed Identity Operator permission for cluster") from error
            time.sleep(2 * attempt)
    wait_for_grant(client, scope, principal)


def wait_for_grant(client, scope, principal):
    """Waits until the grant can be read back, at most as long as its propagation is said to take."""
    deadline = time.monotonic() + PROPAGATION_SECONDS
    while time.monotonic() < deadline:
        found = client.role_assignments.list_for_scope(scope, filter=f"atScope() and assignedTo('{principal}')")
        if any(assignment.role_definition_id.lower().endswith(OPERATOR_ID) for assignment in found):
            return
        time.sleep(1)
