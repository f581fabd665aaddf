"""Flags of the commands that this extension adds."""

from azure.cli.core.azclierror import InvalidArgumentValueError
from knack.arguments import CLIArgumentType


def pod_labels(namespace):
    """Turns `--pod-labels a=b c=d` into a dictionary; given without values it is empty."""
    given = namespace.pod_labels
    if given is None or isinstance(given, dict):
        return
    labels = {}
    for item in given:
        key, sign, value = item.partition("=")
        if not sign or not key:
            raise InvalidArgumentValueError(f"Invalid label {item!r}: write it as key=value.")
        labels[key] = value
    namespace.pod_labels = labels


def load(loader):
    """Declares the flags."""
    flag = CLIArgumentType(action="store_true")
    for command in ("aks create", "aks update"):
        with loader.argument_context(command) as context:
            context.argument(
                "enable_pod_identity", arg_type=flag, help="Give pods of this cluster managed identities."
            )
            context.argument(
                "enable_pod_identity_with_kubenet",
                arg_type=flag,
                help="Allow that on kubenet, where a pod with NET_RAW can forge another pod's address.",
            )
    with loader.argument_context("aks update") as context:
        context.argument("disable_pod_identity", arg_type=flag, help="Take all pod identities away.")
    with loader.argument_context("aks pod-identity") as context:
        context.argument("cluster_name", options_list=["--cluster-name"], help="Name of the cluster.")
        context.argument("namespace", options_list=["--namespace"], help="Namespace of the pods.")
        context.argument("aks_custom_headers", help="Further request headers, as key=value,key=value.")
        context.argument("name", options_list=["--name", "-n"], help="Name of the pod identity.")
    with loader.argument_context("aks pod-identity add") as context:
        context.argument("identity_resource_id", help="Resource id of the managed identity.")
        context.argument("binding_selector", help="Value of the pods' label aadpodidbinding; the name when not given.")
    with loader.argument_context("aks pod-identity exception") as context:
        context.argument("name", options_list=["--name", "-n"], help="Name of the exception.")
        context.argument("pod_labels", nargs="*", validator=pod_labels, help="Labels of the pods, as key=value.")
