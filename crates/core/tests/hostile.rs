//! The fuzz target's check on a bounded number of made-up request targets.

use proptest::prelude::*;

#[path = "../../../fuzz/request.rs"]
mod request;

/// Pieces that attackers put together, and some that honest clients send.
fn target() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "/",
            "//",
            "\\",
            "%2f",
            "%5C",
            "%255c",
            "/../",
            "/./",
            "..",
            ";",
            "%00",
            "%0a",
            "%20",
            "?",
            "&",
            "=",
            "#",
            "metadata",
            "METADATA",
            "identity",
            "oauth2",
            "token",
            "tok%65n",
            "instance",
            "attested",
            "http://a",
            "resource=r",
            "api-version=2018-02-01",
            "client_id=",
            "00000000-0000-0000-0000-000000000002",
            "msi_res_id=/subscriptions/s",
            "object_id=x",
            "\u{ff0f}",
            "\r\nHost: x",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_request_target_breaks_a_promise(tail in target()) {
        request::check(&tail);
        request::check(&[b"/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r&".as_slice(), &tail].concat());
    }
}
