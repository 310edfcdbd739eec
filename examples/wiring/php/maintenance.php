<?php
// Maintenance mode for PHP: the first line of the front controller, or `auto_prepend_file` in php.ini.
//
//   require '/var/www/shop/maintenance.php';
//
// `maintain mode on --flag-file /var/www/shop/closed` closes the shop; it opens by itself when the time is over. CARETAKER_FLAG_FILE names
// another file.
//
// Whoever has the token (`--bypass-token-file`) looks behind by https://shop.example/?bypass=TOKEN; a cookie keeps it for a day.
declare(strict_types=1);

(function (): void {
    $file = getenv('CARETAKER_FLAG_FILE') ?: __DIR__ . '/closed';
    if (PHP_SAPI === 'cli' || !is_file($file)) {
        return;
    }
    // The health endpoint stays up: a shop that is closed on purpose is not down.
    $uri = (string) ($_SERVER['REQUEST_URI'] ?? '/');
    if (preg_match('~^/(api/)?health(\.php)?(\?|$)~', $uri)) {
        return;
    }
    // One that cannot be read, or was made by hand, closes the shop too.
    $notice = json_decode((string) @file_get_contents($file), true);
    $notice = is_array($notice) ? $notice : [];
    $until = isset($notice['until']) ? strtotime((string) $notice['until']) : false;
    if ($until !== false && $until <= time()) {
        return;
    }
    $token = $_GET['bypass'] ?? $_COOKIE['caretaker_bypass'] ?? null;
    $wanted = $notice['bypass_sha256'] ?? null;
    if (is_string($token) && is_string($wanted) && hash_equals($wanted, hash('sha256', $token))) {
        if (isset($_GET['bypass'])) {
            setcookie('caretaker_bypass', $token, ['expires' => time() + 86400, 'path' => '/', 'secure' => true, 'httponly' => true, 'samesite' => 'Lax']);
            // Out of the address, which others get to see.
            $query = array_diff_key($_GET, ['bypass' => true]);
            $path = '/' . ltrim((string) strtok($uri, '?'), '/');
            header('Location: ' . $path . ($query ? '?' . http_build_query($query) : ''), true, 302);
            header('Cache-Control: no-store');
            exit;
        }
        return;
    }
    http_response_code(503);
    header('Retry-After: ' . ($until === false ? 600 : max(1, $until - time())));
    header('Cache-Control: no-store');
    header('Content-Type: text/html; charset=utf-8');
    $reason = htmlspecialchars((string) ($notice['reason'] ?? 'We are working on the shop and will be back soon.'), ENT_QUOTES);
    echo "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Back soon</title><h1>Back soon</h1><p>$reason</p></html>";
    exit;
})();
