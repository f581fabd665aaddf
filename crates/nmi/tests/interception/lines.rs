//! What the program logs: the lines that the original's guides quote, and no id or token as a whole.

use libtest_mimic::Trial;
use serde_json::Value;

use crate::Outcome;
use crate::place::{ON_BRIDGE, ONE, Place, T, TWO};
use crate::program::Program;

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test(
        "the_log_has_the_originals_lines_and_no_whole_id",
        the_log_has_the_originals_lines_and_no_whole_id,
    )]
}

fn the_log_has_the_originals_lines_and_no_whole_id() -> Outcome {
    Place::play(async |place| {
        let between = place.between().await;
        for format in ["json", "text"] {
            let flags = [
                "--interception=local-route",
                "--wait-timeout=1",
                &format!("--log-format={format}"),
            ];
            let agent = Program::ready(place, &between, &flags).await?;
            let other = T.replace("vault", "storage");
            for (target, status) in [
                (T.to_owned(), 200),
                (format!("{other}&client_id={ONE}"), 200),
                // Bound to its neighbour.
                (format!("{T}&client_id={TWO}"), 400),
            ] {
                let got = place.ask(&place.on_bridge, &target).await?;
                assert_eq!(got.status, status, "{}", got.body);
            }
            let log = agent.log();
            agent.end().await?;
            let lines: Vec<String> = log
                .lines()
                .map(|line| match format {
                    "json" => {
                        let line: Value = serde_json::from_str(line)?;
                        Ok(line["message"].as_str().unwrap_or_default().to_owned())
                    }
                    _ => Ok(line.to_owned()),
                })
                .collect::<Result<_, serde_json::Error>>()?;
            for quoted in [
                "starting nmi process. Version: ",
                "running NMI in namespaced mode: true",
                "initializing in managed mode",
                "initialized health probe on port 8085",
                "listening on 169.254.169.254:80",
                "no clientID or resourceID in request. shop/on-bridge has been matched with azure identity shop/one",
                "clientID in request: 1111##### REDACTED #####1111, shop/on-bridge has been matched with azure identity \
                 shop/one",
                "client id 2222##### REDACTED #####2222",
                &format!(
                    " ns for req.method=GET reg.path=/metadata/identity/oauth2/token req.remote={ON_BRIDGE}"
                ),
            ] {
                assert!(lines.iter().any(|line| line.contains(quoted)), "{quoted}\n{log}");
            }
            let took = lines.iter().filter(|line| line.contains("status (200) took "));
            assert_eq!(took.count(), 2, "one for each token that was fetched\n{log}");
            for whole in [ONE, TWO] {
                assert!(!log.contains(whole), "{whole}\n{log}");
            }
        }
        Ok(())
    })
}
