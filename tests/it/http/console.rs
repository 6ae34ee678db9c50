//! The operator console: one page, which anybody may load and nobody may add to.

use super::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn the_console_is_served_by_every_node_and_lets_nothing_else_run() {
    let shop = Shop::start(3).await;
    for node in 0..3 {
        let page = shop.send_to(node, "GET", "/console").await_answer().await.is(200);
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        let policy = page.header("content-security-policy").to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"), "{policy}");
        let nonce =
            policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce").to_owned();
        assert!(page.text.contains(&format!("<script nonce=\"{nonce}\">")), "{policy}");
        assert_eq!((page.header("x-content-type-options"), page.header("cache-control")), ("nosniff", "no-store"));
    }
    assert_eq!(shop.get("/console?x=1").problem().await.1, "invalid-parameter");
    assert_eq!(shop.send("POST", "/console").problem().await.1, "method-not-allowed");
    shop.stop().await;
}
