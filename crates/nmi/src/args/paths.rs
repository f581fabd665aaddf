//! `--path-policy`: who may reach which group of paths of the real metadata service.

use std::str::FromStr;

use podid_core::Policy;
use podid_core::decide::Access;

const GROUPS: &str = "token, instance, attested, scheduledevents or other";
const ACCESSES: &str = "open, excepted or blocked";

/// One group of paths and who may reach it, as `attested=blocked`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathPolicy {
    group: Group,
    access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// Tokens of the node.
    Token,
    Instance,
    Attested,
    ScheduledEvents,
    Other,
}

impl FromStr for PathPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (group, access) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not of the form GROUP=ACCESS"))?;
        let group = match group.to_ascii_lowercase().as_str() {
            "token" => Group::Token,
            "instance" => Group::Instance,
            "attested" => Group::Attested,
            "scheduledevents" => Group::ScheduledEvents,
            "other" => Group::Other,
            _ => return Err(format!("`{group}` is not a group of paths: expected {GROUPS}")),
        };
        let access = match access.to_ascii_lowercase().as_str() {
            "open" => Access::Open,
            "excepted" => Access::Excepted,
            "blocked" => Access::Blocked,
            _ => return Err(format!("`{access}` is nobody's access: expected {ACCESSES}")),
        };
        if (group, access) == (Group::Token, Access::Open) {
            return Err(format!(
                "`{text}` would give every pod the node's own identity; an AzurePodIdentityException opens it to some"
            ));
        }
        Ok(Self { group, access })
    }
}

/// `policy` with these in force, in order; `--block-instance-metadata` counts most.
pub(super) fn applied(policy: Policy, paths: &[PathPolicy], block_instance: bool) -> Policy {
    let mut policy = policy;
    for PathPolicy { group, access } in paths.iter().copied() {
        match group {
            Group::Token => policy.token = access,
            Group::Instance => policy.instance = access,
            Group::Attested => policy.attested = access,
            Group::ScheduledEvents => policy.scheduled_events = access,
            Group::Other => policy.other = access,
        }
    }
    if block_instance {
        policy.instance = Access::Blocked;
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<PathPolicy>, String> {
        text.split(',').map(str::parse).collect()
    }

    #[test]
    fn each_group_is_set_by_its_name_and_tokens_are_never_open() {
        let all = "token=blocked,instance=excepted,attested=open,scheduledevents=blocked,Other=OPEN";
        let policy = applied(Policy::default(), &parse(all).unwrap(), false);
        let expected = Policy {
            token: Access::Blocked,
            instance: Access::Excepted,
            attested: Access::Open,
            scheduled_events: Access::Blocked,
            other: Access::Open,
            ..Policy::default()
        };
        assert_eq!(policy, expected);
        assert_eq!(applied(Policy::default(), &[], false), Policy::default());
        for bad in [
            "token=open",
            "identity=open",
            "instance",
            "instance=yes",
            "=open",
            "",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_originals_flag_blocks_instance_metadata_whatever_else_is_said() {
        let open = parse("instance=open").unwrap();
        assert_eq!(applied(Policy::default(), &open, true).instance, Access::Blocked);
    }
}
