//! What a hostile caller says so that the gate and the app would take it for two different things.

use std::time::Duration;

use crate::support::{
    Office, Standing,
    office::{BRACKETS, WELCOME},
    standing::{HOOK, NINJA, mollie},
};

/// Long enough to see somebody in the app who must not be there.
const A_MOMENT: Duration = Duration::from_millis(60);

fn request(method: &str, target: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nhost: pay.example\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// While `first` is in the app, `second` is not; after it, it may be, and is answered.
async fn one_after_the_other(first: &str, second: &str, answer: &'static str) {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let first = gate.begin(first).await;
    let visit = office.next().await;
    let mut later = gate.say(second).await;
    assert!(office.is_quiet_for(A_MOMENT).await, "both are in the app: {second}");
    visit.answer(answer);
    let _ = first.await.unwrap();
    let _ = office.answer_all(answer);
    assert!(later.until("\r\n").await.starts_with("HTTP/1.1 "));
}

#[tokio::test]
async fn however_a_webhook_names_its_payment_it_is_alone_with_it_in_the_app() {
    let hook = |body: &str| request("POST", HOOK, FORM, body);
    let asked = |target: &str| HOOK.to_owned() + target;
    let part = "--B\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\ntr_1\r\n--B--\r\n";
    let many = "a=1&".repeat(1100);
    for odd in [
        hook("id=x&id=tr_1"),
        hook("%69d=tr_1"),
        hook("id=tr_1&x=1"),
        hook("id=tr%5f1"),
        hook("+id=tr_1"),
        hook("id%00x=tr_1"),
        hook("id=tr_1%20"),
        hook("id[]=x&id=tr_1"),
        hook("id=tr_1&pf_payment_id=9"),
        hook(&format!("id=tr_1&{many}")),
        hook("id=tr_1%C3%A9"),
        hook("_method=POST&id=tr_1"),
        request("POST", HOOK, &format!("{FORM}; charset=utf-7"), "id=tr_1"),
        request("POST", HOOK, "multipart/form-data; boundary=B", part),
        request("POST", &asked("?id=tr_1"), FORM, ""),
        request("POST", &asked("?id=tr_1"), JSON, "id=tr_1"),
        request("GET", &asked("?id=tr_1"), FORM, ""),
        request("HEAD", &asked("?id=tr_1"), FORM, ""),
        request("GET", &asked("?id=x"), JSON, r#"{"id":"tr_1"}"#),
        request("POST", HOOK, JSON, r#"{"id":"tr_1"}"#),
        request("POST", HOOK, JSON, r#"{"id":"x","\u0069d":"tr_1","data":{"id":"y"}}"#),
        request("POST", HOOK, "application/hal+json", r#"{"id":"tr_1"}"#),
        request("POST", "/payment_webhook/CompanyKey%2fVolejRejNm", FORM, "id=tr_1"),
        request("POST", "/payment_webhook%2FCompanyKey/VolejRejNm/", FORM, "id=tr_1"),
        request("POST", "/payment_webhook/../VolejRejNm", FORM, "id=tr_1"),
        request("POST", "/index.php%2fpayment_webhook/CompanyKey/VolejRejNm", FORM, "id=tr_1"),
    ] {
        one_after_the_other(&mollie("tr_1"), &odd, BRACKETS).await;
    }
}

#[tokio::test]
async fn however_a_return_names_its_payment_it_is_alone_with_it_in_the_app() {
    const BACK: &str = "/payments/process/response?payment_hash=";
    let get = |target: &str| request("GET", target, FORM, "");
    let back = |value: &str| get(&(BACK.to_owned() + value));
    for odd in [
        request("HEAD", &(BACK.to_owned() + "abc"), FORM, ""),
        back("ABC"),
        back("abc%20"),
        back("%C3%A1bc"),
        back("x&payment_hash[]=y"),
        request("GET", &(BACK.to_owned() + "x"), JSON, r#"{"payment_hash":"abc"}"#),
        get("/payments%2fprocess%2fresponse?payment_hash=abc"),
        get("/mollie/3ds_redirect/key/1%2fabc"),
        get("/mollie/3ds_redirect/../1/abc"),
        get("/mollie/3ds_redirect/key/1/x?hash=abc"),
        request("POST", "/mollie/3ds_redirect/key/1/x", FORM, "hash=abc"),
    ] {
        one_after_the_other(&back("abc"), &odd, WELCOME).await;
    }
}

#[tokio::test]
async fn a_head_of_a_return_is_a_return_and_its_answer_has_no_body() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let told = gate.say(request("HEAD", "/payments/process/response?payment_hash=a", FORM, "")).await;
    let visit = office.next().await;
    assert!(visit.line().starts_with("HEAD "), "{}", visit.line());
    visit.answer(WELCOME.split("<p>").next().unwrap());
    let mut told = told;
    let all = told.rest().await;
    assert!(all.starts_with("HTTP/1.1 302") && all.ends_with("\r\n\r\n"), "{all}");
}

#[tokio::test]
async fn a_body_that_is_broken_from_its_first_byte_is_laid_to_nobody_but_its_sender() {
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    for (target, chunk) in [("/other", "zz\r\n"), ("/other", "-1\r\nx"), (HOOK, "zz\r\n")] {
        let head = format!("POST {target} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
        assert_eq!(gate.ask(head).await.status(), 400, "{target} {chunk:?}");
    }
}
