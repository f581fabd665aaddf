//! The agent and others on its node: an ingress on port 80 of all addresses, somebody who empties the whole ruleset of
//! nf_tables, and connections that are older than the rules.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use podid_kernel::Namespace;
use podid_testkit::eventually;
use podid_testkit::netfilter::flush_ruleset;

use crate::Outcome;
use crate::place::{GATEWAY, METADATA, ONE, Place, T};

/// How long a silence must last to be one.
const SILENCE: Duration = Duration::from_secs(2);
/// The ways that leave port 80 to others.
const FREE: [&[&str]; 3] = [
    &["--interception=local-route+nft"],
    &["--interception=auto"],
    &["--interception=nft", "--listen=10.1.0.4:2579"],
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "an_ingress_and_the_agent_serve_beside_each_other_whichever_starts_first",
            an_ingress_and_the_agent_serve_beside_each_other_whichever_starts_first,
        ),
        Trial::test(
            "an_emptied_ruleset_opens_nothing_and_is_mended_and_counted",
            an_emptied_ruleset_opens_nothing_and_is_mended_and_counted,
        ),
        Trial::test(
            "connections_older_than_the_rules_lead_nowhere",
            connections_older_than_the_rules_lead_nowhere,
        ),
    ]
}

/// A program on port 80 of all addresses of the node.
fn ingress(node: &Namespace) -> Outcome {
    let listener = node.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)))??;
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.write_all(b"ingress").ok();
        }
    });
    Ok(())
}

/// What a pod is told at port 80 of its node.
fn at_port_80(pod: &Namespace) -> Result<String, Failed> {
    let said = pod.run(|| {
        let mut said = String::new();
        TcpStream::connect((GATEWAY, 80))?.read_to_string(&mut said)?;
        Ok::<_, io::Error>(said)
    })??;
    Ok(said)
}

fn an_ingress_and_the_agent_serve_beside_each_other_whichever_starts_first() -> Outcome {
    for flags in FREE {
        for ingress_first in [true, false] {
            Place::play(async |place| {
                if ingress_first {
                    ingress(&place.node)?;
                }
                let agent = place.agent(flags).await;
                if !ingress_first {
                    ingress(&place.node)?;
                }
                for pod in [&place.on_bridge, &place.direct] {
                    assert_eq!(place.ask(pod, T).await?.status, 200, "{flags:?}");
                    assert_eq!(at_port_80(pod)?, "ingress", "{flags:?}");
                }
                assert_eq!(place.strangers(), 0);
                agent.end().await;
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn an_emptied_ruleset_opens_nothing_and_is_mended_and_counted() -> Outcome {
    for flags in [FREE[0], FREE[2]] {
        Place::play(async |place| {
            // Whoever comes to port 80 instead would be told so.
            ingress(&place.node)?;
            let agent = place.agent(flags).await;
            place.node.run(flush_ruleset)??;
            let answered = async || match place.ask(&place.on_bridge, T).await {
                Ok(got) => {
                    assert_eq!(got.token(), format!("h.{ONE}.s"), "{flags:?}: {got:?}");
                    Ok(())
                }
                // Closed for a moment is as it should be.
                Err(failed) => Err(format!("{failed:?}")),
            };
            eventually("pods are answered again", answered).await?;
            let counted = async || {
                let metrics = agent.probe("/metrics").await;
                if metrics.contains("podid_nmi_redirect_repairs_total 1") {
                    Ok(())
                } else {
                    Err(metrics)
                }
            };
            eventually("the repair is counted", counted).await?;
            // Once more, and nobody is there to mend it.
            agent.end().await;
            place.node.run(flush_ruleset)??;
            for pod in [&place.on_bridge, &place.direct] {
                let got = place.ask(pod, T).await;
                assert!(got.is_err(), "{flags:?}: {got:?}");
            }
            assert_eq!(place.strangers(), 0, "{flags:?}");
            // An agent that comes back puts right what it finds.
            let agent = place.agent(flags).await;
            assert_eq!(place.ask(&place.on_bridge, T).await?.status, 200, "{flags:?}");
            agent.end().await;
            Ok(())
        })?;
    }
    Ok(())
}

fn connections_older_than_the_rules_lead_nowhere() -> Outcome {
    for flags in [&["--interception=local-route"], FREE[0], FREE[2]] {
        Place::play(async |place| {
            let open = || TcpStream::connect(METADATA);
            let mut old = [place.on_bridge.run(open)??, place.direct.run(open)??];
            let agent = place.agent(flags).await;
            for (n, stream) in old.iter_mut().enumerate() {
                stream.set_read_timeout(Some(SILENCE))?;
                let request = format!("GET /old-{n}{T} HTTP/1.1\r\nHost: h\r\nMetadata: true\r\n\r\n");
                // It may be cut already.
                let sent = stream.write_all(request.as_bytes());
                let mut answer = [0];
                let read = sent.and_then(|()| stream.read(&mut answer));
                assert!(!matches!(read, Ok(1..)), "{flags:?}: connection {n} was answered");
            }
            let told = place.service.targets();
            assert!(
                told.iter().all(|target| !target.starts_with("/old-")),
                "{flags:?}: {told:?}"
            );
            // The same pods are served on new ones.
            assert_eq!(place.ask(&place.on_bridge, T).await?.status, 200, "{flags:?}");
            agent.end().await;
            Ok(())
        })?;
    }
    Ok(())
}
