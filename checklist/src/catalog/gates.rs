//! Lists of their own: before a deployment, and in an incident.

use crate::item::{Item, Risk};

/// What has to be so before a deployment: gates for the tool `deploy`, checked or attested.
pub fn deployment_gates() -> Vec<Item> {
    let gate = |id: &str, title: &str, why: &str, attest: Option<&str>| {
        let item = Item::new(id, "Deployment", title).with_risk(Risk::High, why);
        match attest {
            Some(what) => item.with_attestation(what, false),
            None => item,
        }
    };
    vec![
        gate(
            "deploy.backup",
            "A verified backup of the last hour",
            "What a migration breaks comes back only from there.",
            None,
        ),
        gate(
            "deploy.healthy",
            "The shop is healthy before",
            "What was broken before cannot be told from what the deployment breaks.",
            None,
        ),
        gate("deploy.no-critical", "No critical item fails", "A deployment is no time for a hole that is known.", None),
        gate("deploy.dependencies", "No new known vulnerability", "It is cheapest to stop it here.", None),
        gate(
            "deploy.tested",
            "Tested on staging",
            "Customers are no testers.",
            Some("the change ran on staging, with a checkout from cart to mail"),
        ),
        gate(
            "deploy.rollback",
            "A way back",
            "It is thought of before, or at three in the morning.",
            Some("the command that goes back is known, and migrations can be undone or are compatible"),
        ),
        gate(
            "deploy.announced",
            "Announced",
            "Support knows what customers will ask.",
            Some("support and owner know of it"),
        ),
    ]
}

/// What people do in an incident, in order; each with what is written down of it.
pub fn incident_steps() -> Vec<Item> {
    let step = |n: u8, title: &str, what: &str| {
        Item::new(format!("incident.{n:02}"), "Incident", title)
            .with_risk(Risk::High, what)
            .with_attestation(what, true)
    };
    vec![
        step(1, "Write down when it began and who leads", "time, name, what was seen first"),
        step(
            2,
            "Keep what will be needed as evidence",
            "logs, a copy of the disk or a snapshot, the time of each step",
        ),
        step(3, "Contain it", "what was taken off the net, which keys and sessions were ended, maintenance mode"),
        step(4, "Say who is affected", "which customers and which data, as far as is known, and how that is known"),
        step(
            5,
            "Report it where that is due",
            "the supervisory authority within 72 hours (GDPR Art. 33), the payment provider, customers (Art. 34)",
        ),
        step(6, "Mend the cause", "the hole, how it was closed, how that was proved"),
        step(7, "Restore and verify", "the snapshot, the drill or restore, what was lost since"),
        step(8, "Change all keys that could have been read", "each by name, in the register of secrets"),
        step(
            9,
            "Look back within two weeks",
            "what would have shown it earlier, what is changed, who does it until when",
        ),
    ]
}
