//! Why an entry of the profile is not in force: stable codes, and what to say about each. The controller writes them
//! into the status, the command line reads them from there.

/// One reason. The reference page of codes is made from these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryCode {
    /// Stable code.
    pub code: &'static str,
    /// What happened, in one sentence without end stop.
    pub text: &'static str,
    /// What would help.
    pub fix: &'static str,
    /// Whether it may go away by itself; the entry is then `Updating` and not `Failed`.
    pub passing: bool,
}

/// All reasons.
pub const ENTRY_CODES: &[EntryCode] = &[
    NOT_OURS,
    KUBENET,
    RESERVED,
    SELECTOR,
    DUPLICATE,
    NAMESPACE,
    REFUSED,
    UNAVAILABLE,
    ASSIGNMENT_REFUSED,
    ASSIGNMENT_PENDING,
];

/// Somebody else's object is in the way.
pub const NOT_OURS: EntryCode = EntryCode {
    code: "object_not_ours",
    text: "An object of the entry's name was made by somebody else, and is left alone",
    fix: "delete that object, or choose another name",
    passing: false,
};

/// Kubenet without consent.
pub const KUBENET: EntryCode = EntryCode {
    code: "kubenet_not_allowed",
    text: "The cluster's network plugin is kubenet, where a pod with NET_RAW may take another pod's address",
    fix: "use Azure CNI, or set allowNetworkPluginKubenet and drop NET_RAW by policy",
    passing: false,
};

/// A name of podid's own.
pub const RESERVED: EntryCode = EntryCode {
    code: "name_reserved",
    text: "The name belongs to an object that podid itself keeps",
    fix: "choose another name",
    passing: false,
};

/// A selector that no pod can have.
pub const SELECTOR: EntryCode = EntryCode {
    code: "selector_invalid",
    text: "No pod can carry the selector as a label's value",
    fix: "give a bindingSelector of at most 63 characters",
    passing: false,
};

/// The second of two entries of one name.
pub const DUPLICATE: EntryCode = EntryCode {
    code: "duplicate_entry",
    text: "The same namespace and name stand in the profile twice; the first one counts",
    fix: "remove one",
    passing: false,
};

/// The namespace is on its way out.
pub const NAMESPACE: EntryCode = EntryCode {
    code: "namespace_terminating",
    text: "The entry's namespace is being deleted",
    fix: "",
    passing: true,
};

/// The API server says no.
pub const REFUSED: EntryCode = EntryCode {
    code: "write_refused",
    text: "The API server refused the entry's object",
    fix: "read the message: a validation, an admission webhook or missing rights of the controller",
    passing: false,
};

/// The API server says nothing, or later.
pub const UNAVAILABLE: EntryCode = EntryCode {
    code: "api_unavailable",
    text: "The API server could not be reached, or asked to come back",
    fix: "",
    passing: true,
};

/// ARM says no.
pub const ASSIGNMENT_REFUSED: EntryCode = EntryCode {
    code: "assignment_refused",
    text: "ARM refused to put the identity on a scale set of the nodes",
    fix: "see whether the identity exists, and whether the controller has Managed Identity Operator on it and Virtual Machine Contributor on the scale set",
    passing: false,
};

/// ARM is not done.
pub const ASSIGNMENT_PENDING: EntryCode = EntryCode {
    code: "assignment_pending",
    text: "The identity is not on all scale sets of the nodes yet",
    fix: "",
    passing: true,
};

impl EntryCode {
    /// The reason with this code.
    pub fn of(code: &str) -> Option<&'static Self> {
        ENTRY_CODES.iter().find(|known| known.code == code)
    }
}
