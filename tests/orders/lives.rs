//! What providers say of a payment, from its beginning to its end.

/// One callback: a recorded one, with other words in some places, and what its provider answers when it is asked.
pub struct Says {
    /// The fixture.
    pub file: &'static str,
    /// What stands there instead of what.
    pub with: &'static [(&'static str, &'static str)],
    /// Empty where it is not asked.
    pub answer: &'static str,
}

const fn says(file: &'static str, with: &'static [(&'static str, &'static str)]) -> Says {
    Says { file, with, answer: "" }
}

/// One that does not say what happened.
const fn answered(file: &'static str, with: &'static [(&'static str, &'static str)], answer: &'static str) -> Says {
    Says { file, with, answer }
}

pub type Life = &'static [Says];

/// The lives of payments, in the order in which things happen.
pub const LIVES: &[(&str, Life)] = &[
    (
        "mollie",
        &[
            says(
                "event-paid",
                &[("whe_fixture1", "whe_1"), ("payment.paid", "payment.authorized"), ("\"paid\"", "\"authorized\"")],
            ),
            says("event-paid", &[]),
            says(
                "event-paid",
                &[
                    ("whe_fixture1", "whe_2"),
                    ("payment.paid", "refund.refunded"),
                    ("\"entityId\":\"tr_fixture1\"", "\"entityId\":\"re_1\""),
                    (
                        "{\"id\":\"tr_fixture1\",\"resource\":\"payment\"",
                        "{\"id\":\"re_1\",\"paymentId\":\"tr_fixture1\",\"resource\":\"refund\"",
                    ),
                ],
            ),
            says(
                "event-paid",
                &[
                    ("whe_fixture1", "whe_3"),
                    ("payment.paid", "refund.refunded"),
                    ("\"entityId\":\"tr_fixture1\"", "\"entityId\":\"re_2\""),
                    (
                        "{\"id\":\"tr_fixture1\",\"resource\":\"payment\"",
                        "{\"id\":\"re_2\",\"paymentId\":\"tr_fixture1\",\"resource\":\"refund\"",
                    ),
                ],
            ),
            says(
                "event-paid",
                &[
                    ("whe_fixture1", "whe_4"),
                    ("payment.paid", "chargeback.received"),
                    ("\"entityId\":\"tr_fixture1\"", "\"entityId\":\"chb_1\""),
                    (
                        "{\"id\":\"tr_fixture1\",\"resource\":\"payment\"",
                        "{\"id\":\"chb_1\",\"paymentId\":\"tr_fixture1\",\"resource\":\"chargeback\"",
                    ),
                ],
            ),
        ],
    ),
    (
        "mollie",
        &[
            answered(
                "classic",
                &[],
                r#"{"resource":"payment","id":"tr_fixture1","status":"open","amount":{"value":"48.40","currency":"EUR"}}"#,
            ),
            answered(
                "classic",
                &[],
                r#"{"resource":"payment","id":"tr_fixture1","status":"paid","amount":{"value":"48.40","currency":"EUR"}}"#,
            ),
            answered(
                "classic",
                &[],
                r#"{"resource":"payment","id":"tr_fixture1","status":"paid","amount":{"value":"48.40","currency":"EUR"},"amountRefunded":{"value":"10.00","currency":"EUR"},"_embedded":{"refunds":[{"id":"re_1","status":"refunded"}]}}"#,
            ),
            answered(
                "classic",
                &[],
                r#"{"resource":"payment","id":"tr_fixture1","status":"paid","amount":{"value":"48.40","currency":"EUR"},"amountRefunded":{"value":"20.00","currency":"EUR"},"_embedded":{"refunds":[{"id":"re_1","status":"refunded"},{"id":"re_2","status":"refunded"}]}}"#,
            ),
            answered(
                "classic",
                &[],
                r#"{"resource":"payment","id":"tr_fixture1","status":"paid","amount":{"value":"48.40","currency":"EUR"},"amountRefunded":{"value":"20.00","currency":"EUR"},"amountChargedBack":{"value":"28.40","currency":"EUR"},"_embedded":{"refunds":[{"id":"re_1","status":"refunded"},{"id":"re_2","status":"refunded"}],"chargebacks":[{"id":"chb_1"}]}}"#,
            ),
        ],
    ),
    (
        "stripe",
        &[
            says(
                "intent-succeeded",
                &[("evt_FxA", "evt_0"), ("payment_intent.succeeded", "payment_intent.processing")],
            ),
            says("charge-succeeded", &[]),
            says("intent-succeeded", &[]),
            says("charge-refunded-in-part", &[]),
            says(
                "charge-refunded-in-part",
                &[("evt_FxR", "evt_R2"), ("\"amount_refunded\": 1000", "\"amount_refunded\": 4200")],
            ),
            says("dispute", &[]),
        ],
    ),
    (
        "stripe",
        &[
            says(
                "intent-succeeded",
                &[("evt_FxA", "evt_0"), ("payment_intent.succeeded", "payment_intent.payment_failed")],
            ),
            says(
                "intent-succeeded",
                &[("evt_FxA", "evt_1"), ("payment_intent.succeeded", "payment_intent.processing")],
            ),
            says("charge-authorised", &[]),
            says("intent-succeeded", &[]),
            says("charge-refunded-in-part", &[]),
        ],
    ),
    (
        "paypal",
        &[
            says("order-approved", &[]),
            says("pending", &[]),
            says("captured", &[]),
            says("order-completed", &[]),
            says("refunded-in-part", &[]),
            says("reversed", &[]),
        ],
    ),
    (
        "gocardless",
        &[
            says("confirmed", &[("EVfx1", "EV1"), ("\"confirmed\"", "\"submitted\"")]),
            says("confirmed", &[("EVfx1", "EV2"), ("\"confirmed\"", "\"failed\"")]),
            says("confirmed", &[("EVfx1", "EV3"), ("\"confirmed\"", "\"resubmission_requested\"")]),
            says("confirmed", &[]),
            says("confirmed", &[("EVfx1", "EV4"), ("\"confirmed\"", "\"paid_out\"")]),
        ],
    ),
    (
        "gocardless",
        &[
            says("confirmed", &[]),
            says("confirmed", &[("EVfx1", "EV5"), ("\"confirmed\"", "\"charged_back\"")]),
            says("confirmed", &[("EVfx1", "EV6"), ("\"confirmed\"", "\"chargeback_cancelled\"")]),
            says("confirmed", &[("EVfx1", "EV7"), ("\"confirmed\"", "\"paid_out\"")]),
        ],
    ),
    (
        "gocardless",
        &[
            says("confirmed", &[("EVfx1", "EV1"), ("\"confirmed\"", "\"submitted\"")]),
            says("confirmed", &[]),
            says("confirmed", &[("EVfx1", "EV8"), ("\"confirmed\"", "\"late_failure_settled\"")]),
        ],
    ),
    (
        "square",
        &[
            says("paid", &[("\"e-1\"", "\"e-0\""), ("COMPLETED", "APPROVED")]),
            says("paid", &[]),
            says("refunded", &[]),
            says("refunded", &[("\"e-4\"", "\"e-7\""), ("REFX", "REFY")]),
            says("dispute-lost", &[]),
        ],
    ),
    (
        "braintree",
        &[
            says("settled", &[]),
            says("settled", &[("transaction_settled", "transaction_disbursed"), ("08:00:00", "09:00:00")]),
            says("dispute-opened", &[]),
            says("dispute-won", &[]),
        ],
    ),
    (
        "checkout",
        &[
            says("approved", &[]),
            says("paid", &[]),
            says("refunded", &[]),
            says("refunded", &[("evt_fx3", "evt_fx9"), ("act_fx1", "act_fx2")]),
            says("dispute", &[]),
        ],
    ),
    (
        "razorpay",
        &[
            says(
                "authorised",
                &[("FxEvent1", "Ev0"), ("payment.authorized", "payment.failed"), ("\"authorized\"", "\"failed\"")],
            ),
            says("authorised", &[("FxEvent1", "Ev1")]),
            says(
                "authorised",
                &[("FxEvent1", "Ev2"), ("payment.authorized", "payment.captured"), ("\"authorized\"", "\"captured\"")],
            ),
            says("order-paid", &[("FxEvent1", "Ev3")]),
            says("refunded-in-part", &[("FxEvent1", "Ev4")]),
            says(
                "refunded-in-part",
                &[
                    ("FxEvent1", "Ev5"),
                    ("rfnd_Fx1", "rfnd_Fx2"),
                    ("\"amount_refunded\": 1000", "\"amount_refunded\": 2000"),
                ],
            ),
        ],
    ),
    (
        "payfast",
        &[
            says("complete", &[("COMPLETE", "PENDING")]),
            says("complete", &[("COMPLETE", "FAILED")]),
            says("complete", &[]),
        ],
    ),
    (
        "btcpay",
        &[
            says("created", &[("\"D1\"", "\"D0\"")]),
            says("part-received", &[("\"D1\"", "\"D3\"")]),
            says("part-settled", &[("\"D1\"", "\"D4\"")]),
            says("part-settled", &[("\"D1\"", "\"D5\""), ("tx-1", "tx-2")]),
            says("paid", &[]),
        ],
    ),
    (
        "blockonomics",
        &[
            says("confirmed", &[("status=2", "status=-1")]),
            says("confirmed", &[("status=2", "status=0")]),
            says("confirmed", &[("status=2", "status=1")]),
            says("confirmed", &[]),
        ],
    ),
    (
        "forte",
        &[
            says("sale-ready", &[]),
            says("sale-ready", &[("\"ready\"", "\"settling\"")]),
            says("settled-other-order", &[]),
            says("credit-settled", &[]),
            says("credit-settled", &[("555555555555", "666666666666")]),
            says("unfunded", &[]),
        ],
    ),
    (
        "authorizenet",
        &[
            says("held", &[("\"n-1\"", "\"n-0\"")]),
            says("paid", &[("\"n-1\"", "\"n-2\""), ("authcapture.created", "fraud.approved")]),
            says("paid", &[]),
            says("refunded", &[("\"n-1\"", "\"n-3\"")]),
            says("refunded", &[("\"n-1\"", "\"n-4\""), ("\"id\": \"2\"", "\"id\": \"3\"")]),
        ],
    ),
    (
        "adyen",
        &[
            says(
                "refused",
                &[("PSPFX1", "PSPFX0"), ("\"pspReference\"", "\"originalReference\": \"PSPFX1\", \"pspReference\"")],
            ),
            says("authorised", &[]),
            says(
                "authorised",
                &[("\"PSPFX1\"", "\"PSPFX2\", \"originalReference\": \"PSPFX1\""), ("AUTHORISATION", "CAPTURE")],
            ),
            says(
                "authorised",
                &[("\"PSPFX1\"", "\"PSPFX3\", \"originalReference\": \"PSPFX1\""), ("AUTHORISATION", "REFUND")],
            ),
            says(
                "authorised",
                &[("\"PSPFX1\"", "\"PSPFX4\", \"originalReference\": \"PSPFX1\""), ("AUTHORISATION", "REFUND")],
            ),
            says(
                "authorised",
                &[("\"PSPFX1\"", "\"PSPFX5\", \"originalReference\": \"PSPFX1\""), ("AUTHORISATION", "CHARGEBACK")],
            ),
        ],
    ),
    (
        "alipay",
        &[
            says("waiting", &[("nf-1", "nf-0")]),
            says("paid", &[]),
            says("refunded-in-part", &[]),
            says("refunded-in-part", &[("nf-2", "nf-3"), ("refund_fee=2.00", "refund_fee=4.00"), ("=R1", "=R2")]),
            says(
                "refunded-in-part",
                &[
                    ("nf-2", "nf-4"),
                    ("refund_fee=2.00", "refund_fee=42.00"),
                    ("=R1", "=R3"),
                    ("TRADE_SUCCESS", "TRADE_CLOSED"),
                ],
            ),
        ],
    ),
    (
        "wechatpay-v2",
        &[says("failed", &[]), says("paid", &[]), says("refund-closed", &[]), says("refunded-in-part", &[])],
    ),
    (
        "wechatpay-v3",
        &[
            says("paid", &[]),
            says("refund-abnormal", &[("EV-fx1", "EV-fx2")]),
            says("refunded-in-part", &[("EV-fx1", "EV-fx3")]),
        ],
    ),
    ("unionpay", &[says("paid", &[]), says("refunded", &[]), says("refunded", &[("queryId=78fx2", "queryId=78fx3")])]),
    (
        "paddle",
        &[
            says(
                "paid",
                &[
                    ("evt_fx1", "evt_fx0"),
                    ("transaction.completed", "transaction.ready"),
                    ("\"completed\"", "\"ready\""),
                ],
            ),
            says(
                "paid",
                &[("evt_fx1", "evt_fx9"), ("transaction.completed", "transaction.paid"), ("\"completed\"", "\"paid\"")],
            ),
            says("paid", &[]),
            says("chargeback", &[("evt_fx4", "evt_fx5"), ("\"chargeback\"", "\"refund\""), ("adj_1", "adj_0")]),
            says("chargeback", &[]),
        ],
    ),
    (
        "lemonsqueezy",
        &[
            says("paid", &[("\"paid\"", "\"pending\""), ("08:00:00", "07:00:00")]),
            says("paid", &[]),
            says("refunded-in-part", &[]),
            says(
                "refunded-in-part",
                &[("\"refunded_amount\": 1000", "\"refunded_amount\": 2000"), ("08:00:00", "10:00:00")],
            ),
        ],
    ),
    (
        "paystack",
        &[
            says("paid", &[("charge.success", "charge.failed"), ("\"success\"", "\"failed\"")]),
            says("paid", &[]),
            says("refund-pending", &[]),
            says("refunded", &[]),
            says("refunded", &[("TRF_fx1", "TRF_fx2")]),
            says("dispute", &[]),
        ],
    ),
    (
        "flutterwave",
        &[
            says("v4", &[("wbk_fx", "wbk_0"), ("\"succeeded\"", "\"pending\"")]),
            says("v4", &[("wbk_fx", "wbk_1"), ("\"succeeded\"", "\"failed\"")]),
            says("v4", &[]),
            says(
                "v4",
                &[
                    ("wbk_fx", "wbk_2"),
                    ("charge.completed", "refund.completed"),
                    ("\"id\": \"chg_fx\"", "\"id\": \"rfd_1\", \"charge_id\": \"FX-4\", \"amount_refunded\": 10"),
                ],
            ),
            says(
                "v4",
                &[
                    ("wbk_fx", "wbk_3"),
                    ("charge.completed", "refund.completed"),
                    ("\"id\": \"chg_fx\"", "\"id\": \"rfd_2\", \"charge_id\": \"FX-4\", \"amount_refunded\": 10"),
                ],
            ),
        ],
    ),
    (
        "flutterwave",
        &[
            says("failed", &[]),
            says("v3", &[]),
            says("v3", &[("charge.completed", "refund.completed"), ("285900002", "1")]),
            says("v3", &[("charge.completed", "refund.completed"), ("285900002", "2")]),
        ],
    ),
    (
        "xendit",
        &[
            says("paid", &[("wh-1", "wh-0"), ("\"PAID\"", "\"PENDING\"")]),
            says("paid", &[]),
            says("paid", &[("wh-1", "wh-2"), ("\"PAID\"", "\"SETTLED\"")]),
            says("refunded", &[("wh-1", "wh-3"), ("\"pm-1\"", "\"pm-1\", \"invoice_id\": \"inv-fx1\"")]),
            says(
                "refunded",
                &[("wh-1", "wh-4"), ("\"pm-1\"", "\"pm-1\", \"invoice_id\": \"inv-fx1\""), ("rfd-1", "rfd-2")],
            ),
        ],
    ),
    (
        "midtrans",
        &[
            says("pending", &[]),
            says("challenged", &[]),
            says("settled", &[]),
            says("refunded-in-part", &[]),
            says("refunded-in-part", &[("\"refund_chargeback_id\": 7", "\"refund_chargeback_id\": 8")]),
        ],
    ),
    (
        "mercadopago",
        &[
            answered(
                "notice",
                &[],
                r#"{"id":1300,"status":"in_process","currency_id":"BRL","transaction_amount":121.5,"transaction_amount_refunded":0,"refunds":[]}"#,
            ),
            answered(
                "notice",
                &[],
                r#"{"id":1300,"status":"approved","currency_id":"BRL","transaction_amount":121.5,"transaction_amount_refunded":0,"refunds":[]}"#,
            ),
            answered(
                "updated",
                &[],
                r#"{"id":1300,"status":"approved","currency_id":"BRL","transaction_amount":121.5,"transaction_amount_refunded":0,"refunds":[]}"#,
            ),
            answered(
                "notice",
                &[],
                r#"{"id":1300,"status":"approved","currency_id":"BRL","transaction_amount":121.5,"transaction_amount_refunded":10,"refunds":[{"id":1,"amount":10,"status":"approved"}]}"#,
            ),
            answered(
                "notice",
                &[],
                r#"{"id":1300,"status":"charged_back","currency_id":"BRL","transaction_amount":121.5,"transaction_amount_refunded":10,"refunds":[{"id":1,"amount":10,"status":"approved"}]}"#,
            ),
        ],
    ),
    (
        "klarna",
        &[
            says("in-progress", &[("ev-fx1", "ev-fx0")]),
            says("completed", &[]),
            answered(
                "push",
                &[],
                r#"{"order_id":"o-fx1","status":"AUTHORIZED","order_amount":4200,"purchase_currency":"EUR"}"#,
            ),
            answered(
                "push",
                &[],
                r#"{"order_id":"o-fx1","status":"CAPTURED","order_amount":4200,"captured_amount":4200,"purchase_currency":"EUR"}"#,
            ),
            answered(
                "push",
                &[],
                r#"{"order_id":"o-fx1","status":"CAPTURED","order_amount":4200,"captured_amount":4200,"refunded_amount":1000,"purchase_currency":"EUR"}"#,
            ),
        ],
    ),
    (
        "coinbase-commerce",
        &[
            says("pending", &[]),
            says("failed", &[]),
            says("delayed", &[]),
            says("paid", &[("ev-fx1", "ev-fx5"), ("charge:confirmed", "charge:resolved")]),
        ],
    ),
    ("przelewy24", &[says("paid", &[]), says("refund-rejected", &[]), says("refunded", &[])]),
    (
        "payu",
        &[
            says("completed", &[("\"COMPLETED\"", "\"PENDING\"")]),
            says("waiting", &[]),
            says("completed", &[]),
            says("refund-cancelled", &[]),
            says("refunded", &[]),
        ],
    ),
    (
        "standard-webhooks",
        &[
            says("paid", &[("msg_fx1", "msg_0"), ("payment.succeeded", "payment.processing")]),
            says("paid", &[("msg_fx1", "msg_1"), ("payment.succeeded", "payment.failed")]),
            says("paid", &[]),
            says("refunded", &[("msg_fx1", "msg_2")]),
            says("refunded", &[("msg_fx1", "msg_3")]),
        ],
    ),
];
