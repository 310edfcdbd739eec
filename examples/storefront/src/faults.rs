//! Faults that grown shops have, planted into the sample shop, and its twin without any.
//!
//! For each engine: what makes the shop clean, what uses its indexes as the shop does, what plants the faults, and what an
//! inspection has to find then: the check and the object. The checks are those of `db-maint`.

/// One engine's.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// Statements that mend what the sample shop itself lacks, one at a time.
    pub mend: &'static [&'static str],
    /// Queries that use every index which nothing else needs.
    pub trade: &'static [&'static str],
    /// Statements that plant the faults, one at a time. One that begins with `!` fails, and leaves what it leaves.
    pub plant: &'static [&'static str],
    /// What is to be found then.
    pub planted: &'static [(&'static str, &'static str)],
}

/// PostgreSQL.
pub const POSTGRES: Faults = Faults {
    mend: &[
        "ALTER TABLE webhook_receipts DROP CONSTRAINT webhook_receipts_event_id_key",
        "ALTER TABLE webhook_receipts ADD PRIMARY KEY (event_id)",
        "ALTER TABLE email_log ADD PRIMARY KEY (id, sent_at)",
        "VACUUM ANALYZE",
    ],
    trade: &[
        "SET enable_seqscan = off",
        "SET enable_sort = off",
        "SELECT id FROM customers WHERE lower(name) = 'ada'",
        "SELECT id FROM products WHERE search @@ to_tsquery('english', 'tea')",
        "SELECT product_id, stock FROM variants WHERE stock < low_stock_threshold ORDER BY product_id, stock",
        "SELECT id FROM orders WHERE customer_id = 1 ORDER BY placed_at DESC",
        "SELECT id FROM orders WHERE status IN ('pending', 'paid') ORDER BY placed_at",
        "SELECT id FROM order_items WHERE order_id = 1",
        "SELECT id FROM payments WHERE gateway = 'stripe' AND reference = 'x'",
        "SELECT recipient FROM email_log WHERE sent_at = '2026-01-01'",
        "SELECT id FROM sessions WHERE last_used_at = '2026-01-01'",
    ],
    plant: &[
        "CREATE INDEX orders_customer_again ON orders (customer_id, placed_at DESC) INCLUDE (status)",
        "CREATE INDEX payments_gateway ON payments (gateway)",
        "CREATE INDEX orders_ip ON orders (ip)",
        "!CREATE UNIQUE INDEX CONCURRENTLY addresses_country ON addresses (country)",
        "ALTER TABLE testimonials ADD CONSTRAINT testimonials_product FOREIGN KEY (product_id) REFERENCES products NOT VALID",
        "CREATE TABLE import_2019 AS SELECT * FROM settings",
        "CREATE TABLE tickets (id serial PRIMARY KEY, text text)",
        "SELECT setval('tickets_id_seq', 2000000000)",
        "ALTER TABLE order_items SET (autovacuum_enabled = false)",
        "UPDATE order_items SET quantity = quantity",
        "CREATE TABLE import_2020 (id integer PRIMARY KEY) WITH (autovacuum_enabled = false)",
        "INSERT INTO import_2020 SELECT generate_series(1, 5000)",
    ],
    planted: &[
        ("counter-exhaustion", "public.tickets.id"),
        ("dead-rows", "public.order_items"),
        ("foreign-key-unindexed", "public.testimonials.testimonials_product"),
        ("index-duplicate", "public.orders.orders_customer_again"),
        ("index-invalid", "public.addresses.addresses_country"),
        ("index-redundant", "public.payments.payments_gateway"),
        ("index-unused", "public.orders.orders_ip"),
        ("index-unused", "public.payments.payments_gateway"),
        ("statistics-stale", "public.import_2020"),
        ("statistics-stale", "public.order_items"),
        ("table-without-primary-key", "public.import_2019"),
    ],
};

/// MySQL and MariaDB, where the server counts the use of indexes.
pub const MYSQL: Faults = Faults {
    mend: &["ALTER TABLE sessions ENGINE=InnoDB"],
    trade: &[
        "SELECT COUNT(id) FROM customers FORCE INDEX (customers_name) WHERE name > ''",
        "SELECT COUNT(id) FROM variants FORCE INDEX (variants_low) WHERE is_low = 1",
        "SELECT COUNT(id) FROM orders FORCE INDEX (orders_open) WHERE status = 'paid' AND placed_at > '2025-01-01'",
        "SELECT COUNT(id) FROM order_items FORCE INDEX (order_items_order) WHERE order_id = 1",
        "SELECT COUNT(id) FROM payments FORCE INDEX (payments_reference) WHERE gateway > ''",
        "SELECT COUNT(id) FROM email_log FORCE INDEX (email_log_sent) WHERE sent_at > '2000-01-01'",
        "SELECT COUNT(id) FROM sessions FORCE INDEX (sessions_used) WHERE last_used_at > '2000-01-01'",
    ],
    plant: &[
        "CREATE INDEX orders_customer_again ON orders (customer_id, placed_at)",
        "CREATE INDEX payments_gateway ON payments (gateway)",
        "CREATE INDEX orders_ip ON orders (ip)",
        "CREATE TABLE import_2019 (name varchar(60), value text)",
        "CREATE TABLE tickets (id int NOT NULL AUTO_INCREMENT PRIMARY KEY, text text) AUTO_INCREMENT = 2000000000",
        "CREATE TABLE visits (id int NOT NULL PRIMARY KEY) ENGINE=MyISAM",
        "CREATE TABLE reviews (id int NOT NULL PRIMARY KEY, product_id bigint unsigned, \
           CONSTRAINT reviews_product FOREIGN KEY (product_id) REFERENCES products (id)) ENGINE=InnoDB",
        "SET foreign_key_checks = 0",
        "INSERT INTO reviews VALUES (1, 900000000), (2, NULL)",
        "SET foreign_key_checks = 1",
        "CREATE TABLE import_2020 (id int NOT NULL PRIMARY KEY, note int) ENGINE=InnoDB STATS_AUTO_RECALC=0",
        "INSERT INTO import_2020 SELECT id, 1 FROM order_items",
    ],
    planted: &[
        ("counter-exhaustion", "tickets.id"),
        ("foreign-key-violated", "reviews.reviews_product"),
        ("index-duplicate", "orders.orders_customer_again"),
        ("index-redundant", "payments.payments_gateway"),
        ("index-unused", "orders.orders_ip"),
        ("index-unused", "payments.payments_gateway"),
        ("statistics-stale", "import_2020"),
        ("table-not-transactional", "visits"),
        ("table-without-primary-key", "import_2019"),
    ],
};

/// SQLite, which counts nothing.
pub const SQLITE: Faults = Faults {
    mend: &[
        "CREATE TABLE receipts (gateway TEXT NOT NULL, event_id TEXT PRIMARY KEY, event TEXT, body BLOB, valid INTEGER, received_at TEXT)",
        "INSERT INTO receipts SELECT * FROM webhook_receipts",
        "DROP TABLE webhook_receipts",
        "ANALYZE",
    ],
    trade: &[],
    plant: &[
        "CREATE INDEX orders_customer_again ON orders (customer_id, placed_at DESC)",
        "CREATE INDEX customers_name_again ON customers (lower(name))",
        "CREATE INDEX payments_gateway ON payments (gateway)",
        "CREATE TABLE reviews (id INTEGER PRIMARY KEY, product_id INTEGER REFERENCES products (id))",
        "PRAGMA foreign_keys = OFF",
        "INSERT INTO reviews (product_id) VALUES (900000000), (900000001)",
        "CREATE TABLE import_2019 AS SELECT * FROM settings",
        "UPDATE sqlite_sequence SET seq = 9000000000000000000 WHERE name = 'orders'",
        "CREATE TABLE import_2020 (id INTEGER PRIMARY KEY, code TEXT)",
        "CREATE INDEX import_2020_code ON import_2020 (code)",
        "INSERT INTO import_2020 (code) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n",
    ],
    planted: &[
        ("counter-exhaustion", "orders"),
        ("foreign-key-unindexed", "reviews.foreign key 0"),
        ("foreign-key-violated", "reviews"),
        ("index-duplicate", "customers.customers_name_again"),
        ("index-duplicate", "orders.orders_customer_again"),
        ("index-redundant", "payments.payments_gateway"),
        ("statistics-stale", "import_2020"),
        ("table-without-primary-key", "import_2019"),
    ],
};
