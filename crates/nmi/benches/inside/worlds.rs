//! Decisions in a large world, and new snapshots of it.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::ensure;
use podid_core::decide::Question;
use podid_core::identity::{Binding, Credential, TokenSource};
use podid_core::pod::{Phase, PodRef};
use podid_core::{Caller, Decision, Guid, Identity, Index, ObjectName, Pod, Policy, TokenRequest, decide};
use podid_testkit::bench::Row;
use tokio::time::Instant;

use crate::cluster::{Size, address, client_id, namespace};
use crate::counting::counted;
use crate::{BATCH, LASTS, row};

const LARGE: Size = Size {
    namespaces: 100,
    nodes: 1,
    pods: 5_000,
    bindings: 10_000,
};

/// A decision, and snapshots after changes of different kinds.
pub(crate) fn rows() -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, size) in [
        ("100 namespaces", LARGE),
        (
            "1 namespace",
            Size {
                namespaces: 1,
                ..LARGE
            },
        ),
    ] {
        let mut index = filled(size);
        let world = index.snapshot();
        let request = TokenRequest::parse("api-version=2018-02-01&resource=https://vault.azure.net")
            .map_err(|reason| anyhow::anyhow!("the request is {}", reason.code()))?;
        let caller = |n: usize| Caller::Address(address(n % size.pods));
        let decided = decide(
            &world,
            Policy::default(),
            caller(7),
            Question::Token(&request),
            &mut (),
        );
        ensure!(
            matches!(decided, Decision::Issue { .. }),
            "decided otherwise: {decided:?}"
        );
        rows.push(repeat(
            &format!("decision, 5,000 pods and 10,000 bindings in {name}"),
            |n| {
                black_box(decide(
                    &world,
                    Policy::default(),
                    caller(n),
                    Question::Token(&request),
                    &mut (),
                ));
            },
        ));
        rows.push(repeat(&format!("snapshot after one pod changed, {name}"), |n| {
            let mut changed = pod(size, 0);
            changed.service_account = Arc::from(if n % 2 == 0 { "a" } else { "b" });
            index.apply_pod(changed);
            black_box(index.snapshot());
        }));
        rows.push(repeat(
            &format!("snapshot after one binding changed, {name}"),
            |n| {
                index.apply_binding(Binding {
                    default: n % 2 == 0,
                    ..binding(size, 0)
                });
                black_box(index.snapshot());
            },
        ));
        rows.push(repeat(
            &format!("snapshot after everything was listed anew, {name}"),
            |_| {
                index.reset_pods((0..size.pods).map(|n| pod(size, n)).collect());
                index.reset_bindings((0..size.bindings).map(|n| binding(size, n)).collect());
                black_box(index.snapshot());
            },
        ));
    }
    Ok(rows)
}

fn repeat(what: &str, mut each: impl FnMut(usize)) -> Row {
    for n in 0..4 {
        each(n);
    }
    let before = (Instant::now(), counted());
    let (mut times, mut batch) = (0_u32, 1);
    while before.0.elapsed() < LASTS {
        for n in 0..batch {
            each(n as usize);
        }
        times += batch;
        // Slow things one by one, fast ones without looking at the clock each time.
        if before.0.elapsed() / times < LASTS / 10_000 {
            batch = BATCH;
        }
    }
    row(what, before, times)
}

fn filled(size: Size) -> Index {
    let mut index = Index::new();
    index.reset_pods((0..size.pods).map(|n| pod(size, n)).collect());
    index.reset_identities((0..size.bindings).map(|n| identity(size, n)).collect());
    index.reset_bindings((0..size.bindings).map(|n| binding(size, n)).collect());
    index
}

fn pod(size: Size, n: usize) -> Pod {
    let label = |text: String| Arc::<str>::from(text);
    let address: IpAddr = address(n);
    Pod {
        id: PodRef {
            object: ObjectName::new(namespace(size, n), format!("pod-{n}")),
            uid: label(format!("uid-{n}")),
        },
        addresses: vec![address],
        labels: BTreeMap::from([(label("aadpodidbinding".to_owned()), label(format!("app-{n}")))]),
        service_account: label("default".to_owned()),
        phase: Phase::Active,
        host_network: false,
    }
}

fn identity(size: Size, n: usize) -> Identity {
    Identity {
        object: ObjectName::new(namespace(size, n), format!("id-{n}")),
        client_id: Guid::parse(&client_id(n)),
        object_id: None,
        resource_id: None,
        credential: Credential::Managed(TokenSource::Imds),
        namespaced: false,
    }
}

fn binding(size: Size, n: usize) -> Binding {
    Binding {
        object: ObjectName::new(namespace(size, n), format!("binding-{n}")),
        identity: Arc::from(format!("id-{n}")),
        selector: Arc::from(format!("app-{n}")),
        default: false,
    }
}
