"""Help texts of the commands that this extension adds."""

from knack.help_files import helps

for _name, _kind, _summary in [
    ("aks pod-identity", "group", "Give the pods of a cluster managed identities."),
    ("aks pod-identity add", "command", "Give the pods of a namespace a managed identity, and let the cluster use it."),
    ("aks pod-identity delete", "command", "Take a managed identity from the pods of a namespace."),
    ("aks pod-identity list", "command", "Show the cluster with its pod identities."),
    ("aks pod-identity exception", "group", "Let pods reach the node's own metadata service."),
    ("aks pod-identity exception add", "command", "Let the pods with these labels reach the metadata service."),
    ("aks pod-identity exception delete", "command", "Take an exception away."),
    ("aks pod-identity exception update", "command", "Change the labels of an exception."),
    ("aks pod-identity exception list", "command", "Show the cluster with its pod identity exceptions."),
]:
    helps[_name] = f"type: {_kind}\nshort-summary: {_summary}\n"
