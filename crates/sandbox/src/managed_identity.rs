//! `identity`: a managed identity in the world's Azure, on all its nodes, for those who have no `az` at hand.

use std::fmt::Write as _;

use podid_cli::printer::Printer;

use crate::args::IdentityArgs;
use crate::control::client::{Control, ControlError};
use crate::control::{Identity, Reply, Request};
use crate::env::quoted;
use crate::state::Home;

/// Makes it, or takes it away. Its ids go to stdout as shell exports.
pub(crate) fn run(args: IdentityArgs, printer: &mut Printer) -> anyhow::Result<()> {
    let IdentityArgs {
        name,
        group,
        delete,
        world,
    } = args;
    let control = Control::find(&Home::locate(), &world.name)?;
    if delete {
        control.command(&Request::DeleteIdentity { group, name })?;
        return Ok(());
    }
    match control.ask(&Request::Identity { group, name }, &[])?.0 {
        Reply::Identity(identity) => printer.data(&exports(&identity)),
        other => {
            let why = format!("the world answered {other:?} when asked for an identity");
            return Err(ControlError::Refused(why).into());
        }
    }
    Ok(())
}

/// In the tutorial's words.
fn exports(identity: &Identity) -> String {
    let all = [
        ("IDENTITY_RESOURCE_GROUP", &identity.group),
        ("IDENTITY_NAME", &identity.name),
        ("IDENTITY_RESOURCE_ID", &identity.resource_id),
        ("IDENTITY_CLIENT_ID", &identity.client_id),
        ("IDENTITY_OBJECT_ID", &identity.object_id),
    ];
    let mut text = String::new();
    for (name, value) in all {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "export {name}={}", quoted(value));
    }
    text
}
