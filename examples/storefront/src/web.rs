//! The shop on the web, twice: by nginx and PHP, as it must not be, and hardened.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::certificates::{Authority, Kind};
use crate::{Error, nginx, php};

/// A shop on the web; its servers end with this value.
#[derive(Debug)]
pub struct Shop {
    nginx: nginx::Server,
    php: Option<php::Server>,
    authority: Authority,
    hardened: bool,
}

/// Secrets and shapes that stand for real ones, put together so that nobody takes this file for a leak.
fn stripe_key() -> String {
    ["sk_live_", "4eC39HqLyjWDarjtT1zdp7dc"].concat()
}

/// `{"alg":"HS256"}` and the claims, in base64url by PHP.
const JWT: &str = "function jwt($claims) { $b = fn($s) => rtrim(strtr(base64_encode($s), '+/', '-_'), '='); \
                   return $b('{\"alg\":\"HS256\"}') . '.' . $b(json_encode($claims)) . '.c2ln'; }";

impl Shop {
    /// What a shop must not be: no TLS, everything open, everything shown.
    pub async fn weak() -> Result<Self, Error> {
        let php = php::Server::start_showing_errors().await?;
        let public = php.public();
        std::fs::create_dir_all(public.join(".git"))?;
        std::fs::create_dir_all(public.join("admin"))?;
        let page = |name: &str, text: &str| std::fs::write(public.join(name), text);
        page(".env", &format!("STRIPE_SECRET_KEY={}\nDB_PASSWORD=hT5rfq9x\n", stripe_key()))?;
        page(".git/config", "[core]\n\trepositoryformatversion = 0\n")?;
        page("backup.sql", "-- MySQL dump\nCREATE TABLE users (id INT);\nINSERT INTO users VALUES (1);\n")?;
        page("app.js", &format!("fetch('/pay', {{ headers: {{ key: '{}' }} }});\n", stripe_key()))?;
        page(
            "index.php",
            &format!(
                "<?php {JWT} session_start(); setcookie('_ga', 'GA1.2.3'); setcookie('auth_token', jwt(['sub' => 1])); \
                 header('Cache-Control: public, max-age=600'); ?><!doctype html><html><body><h1>Shop</h1>\
                 <img src='http://127.0.0.1/logo.png'><script src='/app.js'></script>\
                 <script async src='https://www.googletagmanager.com/gtag/js?id=G-1'></script>\
                 <a href='/login.php'>Log in</a> <?= $_GET['q'] ?? '' ?> <?= strlen($_GET['id'] ?? '') ?></body></html>"
            ),
        )?;
        page(
            "login.php",
            "<?php if ($_SERVER['REQUEST_METHOD'] === 'POST') { http_response_code(401); } ?><!doctype html><html><body>\
             <?= $_GET['error'] ?? '' ?><form method='post' action='/login.php'><input name='email' type='email'>\
             <input name='password' type='password'><button>Log in</button></form></body></html>",
        )?;
        page(
            "admin/index.php",
            "<!doctype html><html><body><h1>Orders</h1><table><tr><td>Anna</td><td>12.00</td></tr></table></body></html>",
        )?;
        page(
            "api.php",
            "<?php if (isset($_SERVER['HTTP_ORIGIN'])) { header('Access-Control-Allow-Origin: ' . $_SERVER['HTTP_ORIGIN']); \
             header('Access-Control-Allow-Credentials: true'); } header('Content-Type: application/json'); echo '{\"cart\":[]}';",
        )?;
        page(
            "checkout.php",
            "<!doctype html><html><body><form method='post' action='/pay.php'><input name='card_number' autocomplete='cc-number'>\
             <input name='cvv'><button>Pay</button></form></body></html>",
        )?;
        let site = format!(
            "server {{ listen 127.0.0.1:{{port}}; index index.php; {} location ~ /\\. {{ allow all; }} }}",
            php.nginx()
        );
        let nginx = nginx::Server::start(&site).await?;
        Ok(Self { nginx, php: Some(php), authority: Authority::new()?, hardened: false })
    }

    /// The same, hardened: TLS alone, headers, tokens, limits, and nothing given away.
    pub async fn hardened() -> Result<Self, Error> {
        let php = php::Server::start().await?;
        let authority = Authority::new()?;
        let public = php.public();
        std::fs::create_dir_all(public.join("admin"))?;
        let page = |name: &str, text: &str| std::fs::write(public.join(name), text);
        let session = "ini_set('session.use_strict_mode', '1'); session_name('__Host-session'); session_set_cookie_params(\
                       ['secure' => true, 'httponly' => true, 'samesite' => 'Lax', 'path' => '/']); session_start(); \
                       $_SESSION['csrf'] ??= bin2hex(random_bytes(32));";
        page("app.js", "document.title = 'Shop'; // pk_live_4eC39HqLyjWDarjtT1zdp7dc is public by design\n")?;
        page(
            "index.php",
            &format!(
                "<?php {JWT} $t = time(); setcookie('__Host-jwt', jwt(['sub' => 1, 'iat' => $t, 'exp' => $t + 3600]), \
                 ['secure' => true, 'httponly' => true, 'samesite' => 'Lax', 'path' => '/']); \
                 header('Cache-Control: private, no-store'); ?><!doctype html><html><body><h1>Shop</h1>\
                 <script src='/app.js'></script><a href='/login.php'>Log in</a> <a href='/privacy.php'>Privacy policy</a> \
                 <a href='/terms.php'>Terms of service</a> <?= htmlspecialchars(is_string($_GET['q'] ?? '') ? $_GET['q'] ?? '' : '') ?>\
                 </body></html>"
            ),
        )?;
        page(
            "login.php",
            &format!(
                "<?php {session} if ($_SERVER['REQUEST_METHOD'] === 'POST') {{ \
                 http_response_code(hash_equals($_SESSION['csrf'], $_POST['csrf'] ?? '') ? 401 : 403); }} ?><!doctype html><html><body>\
                 <form method='post' action='/login.php'><input type='hidden' name='csrf' value='<?= $_SESSION['csrf'] ?>'>\
                 <input name='email' type='email'><input name='password' type='password'><button>Log in</button></form></body></html>"
            ),
        )?;
        page("admin/index.php", "<?php header('Location: /login.php', true, 302);")?;
        page(
            "api.php",
            "<?php header('Vary: Origin'); if (($_SERVER['HTTP_ORIGIN'] ?? '') === 'https://www.shop.test') { \
             header('Access-Control-Allow-Origin: https://www.shop.test'); header('Access-Control-Allow-Credentials: true'); } \
             header('Content-Type: application/json'); echo '{\"cart\":[]}';",
        )?;
        page(
            "checkout.php",
            &format!(
                "<?php {session} header('Cache-Control: private, no-store'); ?><!doctype html><html><body>\
                 <script src='https://js.stripe.com/v3/'></script><div id='card'></div></body></html>"
            ),
        )?;
        let words = "We keep what an order needs and nothing else; you may ask for access, rectification, erasure and \
                     portability at any time, and lodge a complaint with the authority. ";
        for (name, title) in [("privacy.php", "Privacy policy"), ("terms.php", "Terms of service")] {
            page(
                name,
                &format!(
                    "<!doctype html><html><body><h1>{title}</h1><p>Last updated: <?= date('j F Y', time() - 30 * 86400) ?></p>\
                     <p>{}</p></body></html>",
                    words.repeat(6)
                ),
            )?;
        }
        let headers = "add_header Strict-Transport-Security \"max-age=31536000; includeSubDomains\" always; \
                       add_header X-Content-Type-Options nosniff always; add_header X-Frame-Options DENY always; \
                       add_header Referrer-Policy strict-origin-when-cross-origin always; \
                       add_header Content-Security-Policy \"default-src 'self'; script-src 'self' https://js.stripe.com; object-src 'none'; base-uri 'self'; frame-ancestors 'none'\" always; \
                       add_header cf-ray 8f1-LHR always;";
        let site = format!(
            "server_tokens off; limit_req_zone $limited zone=login:1m rate=6r/m; limit_req_status 429;\n\
             map $request_method $limited {{ default ''; POST $binary_remote_addr; }}\n\
             server {{ listen 127.0.0.1:{{second}}; server_name _; return 301 https://shop.test:{{port}}$request_uri; }}\n\
             server {{ listen 127.0.0.1:{{port}} ssl; {} index index.php; {headers} limit_req zone=login burst=4 nodelay;\n\
             {} location ~ /\\. {{ return 404; }} location ~ \\.(sql|bak|log)$ {{ return 404; }} }}",
            authority.nginx(Kind::Good),
            php.nginx()
        );
        let nginx = nginx::Server::start(&site).await?;
        Ok(Self { nginx, php: Some(php), authority, hardened: true })
    }

    /// A shop as Next.js builds and serves one: pages with `__NEXT_DATA__`, chunks of scripts, an API of JSON, its header; weak.
    pub async fn next_weak() -> Result<Self, Error> {
        let key = stripe_key();
        let api = "add_header Access-Control-Allow-Origin $http_origin always; add_header Access-Control-Allow-Credentials true always; \
                   default_type application/json;";
        let site = format!(
            "types {{ text/html html; text/javascript js; }}\n\
             server {{ listen 127.0.0.1:{{port}}; root {{here}}/public; add_header X-Powered-By \"Next.js 14.2.3\"; \
             add_header Set-Cookie \"next-auth.session-token=x; Path=/\"; \
             location / {{ try_files $uri $uri/index.html /404.html; }} \
             location /api/ {{ {api} return 200 '{{\"cart\":[]}}'; }} \
             location = /api/caretaker-no-such-page {{ {api} return 500 '{{\"error\":\"PrismaClientKnownRequestError: at async handler (/app/node_modules/x)\"}}'; }} }}"
        );
        let nginx = nginx::Server::start(&site).await?;
        let pages = [
            ("", "<h1>Shop</h1>"),
            ("admin", "<h1>Orders</h1><table><tr><td>Anna</td></tr></table>"),
            ("checkout", "<form method=post action=/pay><input name=cardNumber autocomplete=cc-number></form>"),
        ];
        next_pages(&nginx, &pages, &format!("const k='{key}';fetch('/api/pay',{{headers:{{k}}}})"))?;
        Ok(Self { nginx, php: None, authority: Authority::new()?, hardened: false })
    }

    /// The same, hardened.
    pub async fn next_hardened() -> Result<Self, Error> {
        let authority = Authority::new()?;
        let headers = "add_header Strict-Transport-Security \"max-age=31536000\" always; add_header X-Content-Type-Options nosniff always; \
                       add_header X-Frame-Options DENY always; add_header Referrer-Policy same-origin always; \
                       add_header Content-Security-Policy \"default-src 'self'; script-src 'self' https://js.stripe.com; object-src 'none'; base-uri 'none'\" always;";
        let cookie = "add_header Set-Cookie \"__Secure-next-auth.session-token=x; Path=/; Secure; HttpOnly; SameSite=Lax\" always;";
        let site = format!(
            "server_tokens off; types {{ text/html html; text/javascript js; }}\n\
             server {{ listen 127.0.0.1:{{second}}; return 308 https://shop.test:{{port}}$request_uri; }}\n\
             server {{ listen 127.0.0.1:{{port}} ssl; {} root {{here}}/public; {headers} {cookie} error_page 404 /404.html; \
             location / {{ try_files $uri $uri/index.html =404; }} \
             location /admin {{ return 307 /; }} \
             location /api/admin/ {{ {headers} default_type application/json; return 401 '{{\"error\":\"log in\"}}'; }} \
             location /api/ {{ {headers} default_type application/json; return 200 '{{\"cart\":[]}}'; }} \
             location = /api/caretaker-no-such-page {{ {headers} default_type application/json; return 404 '{{\"error\":\"not found\"}}'; }} }}",
            authority.nginx(Kind::Good)
        );
        let nginx = nginx::Server::start(&site).await?;
        let pages =
            [("", "<h1>Shop</h1>"), ("checkout", "<script src=https://js.stripe.com/v3/></script><div id=card></div>")];
        next_pages(&nginx, &pages, "const k='pk_live_4eC39HqLyjWDarjtT1zdp7dc'")?;
        Ok(Self { nginx, php: None, authority, hardened: true })
    }

    /// Its address. The hardened one is called `shop.test`, which is [`Shop::address`].
    pub fn url(&self) -> String {
        match self.hardened {
            true => format!("https://shop.test:{}/", self.nginx.port()),
            false => self.nginx.url(),
        }
    }

    /// Where it answers HTTP without TLS.
    pub fn http(&self) -> String {
        match self.hardened {
            true => format!("http://shop.test:{}/", self.nginx.second_port()),
            false => self.nginx.url(),
        }
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.nginx.port()))
    }

    /// Whom to trust.
    pub fn root(&self) -> PathBuf {
        self.authority.root()
    }

    /// Its files.
    pub fn public(&self) -> PathBuf {
        self.php.as_ref().map_or_else(|| self.nginx.directory().join("public"), php::Server::public)
    }
}

/// Pages as Next.js exports them, with one chunk of script.
fn next_pages(nginx: &nginx::Server, pages: &[(&str, &str)], chunk: &str) -> Result<(), Error> {
    let public = nginx.directory().join("public");
    std::fs::create_dir_all(public.join("_next/static/chunks"))?;
    std::fs::write(public.join("_next/static/chunks/main-0f1e2d.js"), chunk)?;
    let page = |body: &str| {
        format!(
            "<!doctype html><html><head><script src=/_next/static/chunks/main-0f1e2d.js defer></script></head><body>\
             <div id=__next>{body}</div><script id=__NEXT_DATA__ type=application/json>{{\"props\":{{}},\"page\":\"/\"}}</script></body></html>"
        )
    };
    for (name, body) in pages {
        std::fs::create_dir_all(public.join(name))?;
        std::fs::write(public.join(name).join("index.html"), page(body))?;
    }
    Ok(std::fs::write(public.join("404.html"), page("<h1>404: This page could not be found.</h1>"))?)
}
