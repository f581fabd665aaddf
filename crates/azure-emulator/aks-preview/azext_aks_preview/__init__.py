"""Pod identity for `az aks`: the flags and commands of the tutorial, on top of the CLI's own aks module.

This is podid's own extension, written from the documented behaviour of the commands; it is not Microsoft's.
"""

from azure.cli.core import AzCommandsLoader
from azure.cli.core.commands import CliCommandType

import azext_aks_preview._help  # noqa: F401  (registers the help texts)


class PodIdentityCommandsLoader(AzCommandsLoader):
    """Loads `aks create|update` with three more flags, and the `aks pod-identity` groups."""

    def __init__(self, cli_ctx=None):
        from azure.cli.core.profiles import ResourceType

        super().__init__(
            cli_ctx=cli_ctx,
            custom_command_type=CliCommandType(operations_tmpl="azext_aks_preview.custom#{}"),
            resource_type=ResourceType.MGMT_CONTAINERSERVICE,
        )

    def load_command_table(self, args):
        from azure.cli.command_modules.acs._client_factory import cf_managed_clusters

        clusters = CliCommandType(
            operations_tmpl="azext_aks_preview.custom#{}", client_factory=cf_managed_clusters
        )
        with self.command_group("aks", clusters, client_factory=cf_managed_clusters) as group:
            group.custom_command("create", "aks_create", supports_no_wait=True)
            group.custom_command("update", "aks_update", supports_no_wait=True)
        with self.command_group("aks pod-identity", clusters, client_factory=cf_managed_clusters) as group:
            group.custom_command("add", "pod_identity_add", supports_no_wait=True)
            group.custom_command("delete", "pod_identity_delete", supports_no_wait=True)
            group.custom_command("list", "pod_identity_list", table_transformer=identities_table)
        with self.command_group("aks pod-identity exception", clusters, client_factory=cf_managed_clusters) as group:
            group.custom_command("add", "exception_add", supports_no_wait=True)
            group.custom_command("delete", "exception_delete", supports_no_wait=True)
            group.custom_command("update", "exception_update", supports_no_wait=True)
            group.custom_command("list", "exception_list", table_transformer=exceptions_table)
        return self.command_table

    def load_arguments(self, command):
        from azure.cli.command_modules.acs._params import load_arguments
        from azure.cli.core.commands.parameters import get_three_state_flag  # noqa: F401

        from azext_aks_preview import _params

        load_arguments(self, command)
        _params.load(self)


def identities_table(cluster):
    """The table of `pod-identity list`."""
    profile = cluster.get("podIdentityProfile") or {}
    return [
        {
            "Name": entry.get("name"),
            "Namespace": entry.get("namespace"),
            "ProvisioningState": entry.get("provisioningState"),
            "Identity": (entry.get("identity") or {}).get("resourceId"),
        }
        for entry in profile.get("userAssignedIdentities") or []
    ]


def exceptions_table(cluster):
    """The table of `pod-identity exception list`."""
    profile = cluster.get("podIdentityProfile") or {}
    return [
        {
            "Name": entry.get("name"),
            "Namespace": entry.get("namespace"),
            "PodLabels": " ".join(sorted(f"{key}={value}" for key, value in (entry.get("podLabels") or {}).items())),
        }
        for entry in profile.get("userAssignedIdentityExceptions") or []
    ]


COMMAND_LOADER_CLS = PodIdentityCommandsLoader
