//! State by its handle: what is remembered, forgotten, and told when the disk is full.

use tokio::task::JoinSet;

use super::*;

fn decision(name: &str, version: u8) -> Decision {
    Decision {
        rule: "rule".into(),
        path: RelPath::new(name).unwrap(),
        fingerprint: String::new(),
        payload: Some(Version([version; 40])),
        signature: None,
        outcome: Outcome::Signed,
        reason: None,
        digest: None,
        signature_digest: None,
        key: None,
        item: None,
    }
}

#[tokio::test]
async fn c5_without_room_nobody_of_a_group_is_told_anything_else_and_with_room_all_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let (state, _) = State::open(temp.path()).unwrap();
    let limit = |pages: &'static str| {
        state.call(move |db| db.query_one(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())))
    };
    let record_much = || {
        let mut many = JoinSet::new();
        for n in 0..40 {
            let (state, much) =
                (state.clone(), (0..200).map(|m| decision(&format!("{n}/{m}"), 1)).collect());
            many.spawn(async move { state.record_all(much).await });
        }
        many.join_all()
    };
    limit("1").await.unwrap(); // no more than there are
    for ended in record_much().await {
        assert!(matches!(ended, Err(StateError::Full(_))), "{ended:?}");
    }
    let remembered = async || state.remembered("rule", &RelPath::new("39/199").unwrap()).await.unwrap();
    assert!(remembered().await.is_none());
    limit("1000000").await.unwrap();
    for ended in record_much().await {
        ended.unwrap();
    }
    assert!(remembered().await.is_some());
}

#[tokio::test]
async fn what_was_decided_anew_since_it_was_listed_is_not_forgotten() {
    let temp = tempfile::tempdir().unwrap();
    let (state, _) = State::open(temp.path()).unwrap();
    let names: Vec<String> = (0..1000).map(|i| format!("{i:04}")).collect();
    state.record_all(names.iter().map(|name| decision(name, 1)).collect()).await.unwrap();
    let (mut listed, mut last) = (Vec::new(), Vec::new());
    loop {
        let page = state.decided_after("rule", &last).await.unwrap();
        let Some((path, _)) = page.last() else { break };
        last = path.clone();
        listed.extend(page);
    }
    assert_eq!(listed.len(), names.len(), "every page, and each path once");
    state.record(decision("0007", 2)).await.unwrap();
    state.forget("rule", listed).await.unwrap();
    let left = state.decided_after("rule", b"").await.unwrap();
    assert_eq!(left, [(b"0007".to_vec(), Some(Version([2; 40])))]);
}

#[tokio::test]
async fn a24_what_was_not_delivered_after_all_supersedes_nothing() {
    let state = State::dry_run(Path::new("nowhere")).unwrap();
    let path = RelPath::new("f").unwrap();
    let [one, two] = [b"1", b"2"].map(|content| Digest::of(content));
    assert!(state.remember_delivered_version("r", &path, &one).await.unwrap());
    assert!(!state.remember_delivered_version("r", &path, &one).await.unwrap());
    assert!(state.remember_delivered_version("r", &path, &two).await.unwrap());
    assert!(state.is_superseded("r", &path, &one).await.unwrap());
    state.forget_delivered_version("r", &path, &two).await.unwrap();
    assert!(!state.is_superseded("r", &path, &one).await.unwrap());
}

#[tokio::test]
async fn of_signatures_that_are_replaced_the_last_is_known_until_its_file_is_gone() {
    let state = State::dry_run(Path::new("nowhere")).unwrap();
    let signature = |n: u32| Signature::parse(format!("signature {n}").as_bytes()).unwrap();
    let count =
        || state.call(|db| db.query_one("SELECT count(*) FROM intent", [], |row| row.get::<_, i64>(0)));
    let (file, other) = (RelPath::new("f").unwrap(), RelPath::new("other").unwrap());
    state.add_pending_publish("rule", &other, &signature(7)).await.unwrap();
    for n in 0..10 {
        state.replace_pending_publish("rule", &file, &signature(n)).await.unwrap();
    }
    assert_eq!(count().await.unwrap(), 2);
    assert!(state.is_pending_publish("rule", &file, &signature(9)).await.unwrap());
    let gone = |name: &str, version| vec![(name.as_bytes().to_vec(), Some(Version([version; 40])))];
    state.note(decision("f", 1)).await.unwrap();
    state.note(Decision { outcome: Outcome::Refused, ..decision("other", 1) }).await.unwrap();
    state.forget("rule", gone("f", 2)).await.unwrap();
    assert_eq!(count().await.unwrap(), 2, "another version came");
    state.forget("rule", [gone("f", 1), gone("other", 1)].concat()).await.unwrap();
    assert_eq!(count().await.unwrap(), 1);
    assert!(
        state.is_pending_publish("rule", &other, &signature(7)).await.unwrap(),
        "it may be at the destination"
    );
}

#[tokio::test]
async fn a_row_that_cannot_be_understood_is_no_decision_and_hides_no_other() {
    let state = State::dry_run(Path::new("nowhere")).unwrap();
    state
        .call(|db| {
            db.execute_batch(
                "INSERT INTO decided (rule, path, fingerprint, outcome, digest)
                 VALUES ('r', x'66', 'f', 'signed', 'abc');
                 INSERT INTO decided (rule, path, fingerprint, outcome, payload, reason) VALUES
                 ('r', x'61', 'f', 'invalid', zeroblob(40), 'mismatch'),
                 ('r', x'62', 'f', 'valid', zeroblob(39), NULL),
                 ('r', x'63', 'f', 'valid', NULL, CAST(x'ff' AS TEXT)),
                 ('r', x'64', 'f', 'of a later version', NULL, NULL),
                 ('r', x'65', 'f', 'refused', zeroblob(40), 'of-a-later-version')",
            )
        })
        .await
        .unwrap();
    let paths = ["a", "b", "c", "d", "e", "f"].map(|path| RelPath::new(path).unwrap());
    let found = state.remembered_all("r", paths.to_vec()).await.unwrap();
    let found: Vec<Option<Option<DecisionReason>>> =
        found.into_iter().map(|(_, row)| row.map(|row| row.reason)).collect();
    let known = DecisionReason::Verdict(crate::signing::Reason::Mismatch);
    assert_eq!(found, [Some(Some(known)), None, None, None, Some(None), None]);
    assert!(state.remembered("r", &paths[1]).await.unwrap().is_none());
}

#[tokio::test]
async fn c6_what_was_closed_in_order_is_looked_at_quickly_and_what_was_not_as_a_whole() {
    let temp = tempfile::tempdir().unwrap();
    let (state, _) = State::open(temp.path()).unwrap();
    let digest = Some(Digest::of(b"signature"));
    state.record(Decision { signature_digest: digest, ..decision("a", 1) }).await.unwrap();
    let asked = state.clone();
    state.close().await;
    let (file, journal) = (temp.path().join(FILE), temp.path().join(format!("{FILE}-wal")));
    assert!(!journal.exists(), "it is closed when this returns");
    assert!(asked.remembered("rule", &RelPath::new("a").unwrap()).await.is_err());
    // An index that lacks a row.
    let sql = "PRAGMA writable_schema = ON;
               UPDATE sqlite_schema SET sql = replace(sql, 'IS NOT NULL', 'IS NULL')
               WHERE name = 'decided_signature'";
    Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    let (state, found) = State::open(temp.path()).unwrap();
    assert_eq!(found, Found::Whole);
    state.close().await;
    std::fs::write(&journal, "").unwrap(); // as after a kill
    assert!(matches!(State::open(temp.path()).unwrap().1, Found::SetAside(_)));
}

#[tokio::test]
async fn what_was_about_to_be_signed_and_is_has_the_row_that_it_would_have_alone() {
    let temp = tempfile::tempdir().unwrap();
    let (state, _) = State::open(temp.path()).unwrap();
    let path = RelPath::new("a").unwrap();
    let digest = |text: &str| Some(Digest::of(text.as_bytes()));
    let signed = |payload, content: &str| Decision {
        signature: Some(Version([9; 40])),
        digest: digest(content),
        signature_digest: digest("signature"),
        ..decision("a", payload)
    };
    for (noted, then) in [(signed(1, "x"), signed(1, "x")), (signed(1, "x"), signed(2, "y"))] {
        let noted = Decision { outcome: Outcome::Signing, signature: None, ..noted };
        state.note(noted).await.unwrap();
        state.record(then.clone()).await.unwrap();
        let row = state.remembered("rule", &path).await.unwrap().unwrap();
        assert_eq!((row.outcome, row.payload, row.signature), (Outcome::Signed, then.payload, then.signature));
        assert!(row.digest.unwrap().matches(then.digest.unwrap().as_bytes()));
        assert!(row.signature_digest.is_some());
    }
}
