CREATE TABLE customers (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  email varchar(190) NOT NULL,
  name varchar(190) NOT NULL,
  phone varchar(40),
  password_hash varchar(255) CHARACTER SET ascii COLLATE ascii_bin,
  marketing_consent tinyint(1) NOT NULL DEFAULT 0 CHECK (marketing_consent IN (0, 1)),
  birthday date,
  created_at datetime NOT NULL,
  note text,
  UNIQUE KEY customers_email (email),
  KEY customers_name (name(20))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE addresses (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  customer_id bigint unsigned NOT NULL,
  kind varchar(20) NOT NULL,
  street varchar(190) NOT NULL,
  city varchar(190) NOT NULL,
  postcode varchar(20) NOT NULL,
  country char(2) CHARACTER SET ascii NOT NULL,
  KEY addresses_customer (customer_id),
  CONSTRAINT addresses_customer FOREIGN KEY (customer_id) REFERENCES customers (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE products (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  slug varchar(190) NOT NULL,
  title varchar(190) NOT NULL,
  description text NOT NULL,
  category varchar(60) NOT NULL,
  weight_kg double,
  meta_description varchar(255),
  active tinyint(1) NOT NULL DEFAULT 1,
  created_at datetime NOT NULL,
  UNIQUE KEY products_slug (slug),
  FULLTEXT KEY products_search (title, description)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE variants (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  product_id bigint unsigned NOT NULL,
  sku varchar(60) NOT NULL,
  `option` varchar(60) NOT NULL,
  price_net decimal(10,2) NOT NULL CHECK (price_net >= 0),
  price_gross decimal(10,2) AS (round(price_net * 1.2, 2)) STORED,
  stock int NOT NULL,
  low_stock_threshold int NOT NULL DEFAULT 5,
  is_low tinyint(1) AS (stock < low_stock_threshold) VIRTUAL,
  UNIQUE KEY variants_sku (sku),
  KEY variants_low (is_low, product_id),
  CONSTRAINT variants_product FOREIGN KEY (product_id) REFERENCES products (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE orders (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  number varchar(40) NOT NULL,
  customer_id bigint unsigned NOT NULL,
  status enum('pending', 'paid', 'shipped', 'cancelled') NOT NULL,
  currency char(3) CHARACTER SET ascii NOT NULL,
  shipping decimal(10,2) NOT NULL DEFAULT 0,
  placed_at datetime NOT NULL,
  shipped_at datetime,
  ip varchar(45),
  note text,
  UNIQUE KEY orders_number (number),
  KEY orders_customer (customer_id, placed_at),
  KEY orders_open (status, placed_at),
  CONSTRAINT orders_customer FOREIGN KEY (customer_id) REFERENCES customers (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='Every order; it''s kept for ten years; nobody deletes here';
-- A soft reference, as grown shops have it: nothing but the program keeps it.
CREATE TABLE order_items (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  order_id bigint unsigned NOT NULL,
  variant_id bigint unsigned NOT NULL,
  title varchar(190) NOT NULL,
  quantity int NOT NULL CHECK (quantity > 0),
  unit_price decimal(10,2) NOT NULL,
  KEY order_items_order (order_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE payments (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  order_id bigint unsigned NOT NULL,
  gateway varchar(20) NOT NULL,
  reference varchar(60) NOT NULL,
  amount decimal(10,2) NOT NULL,
  status varchar(20) NOT NULL,
  test_mode tinyint(1) NOT NULL DEFAULT 0,
  payload json,
  created_at datetime NOT NULL,
  KEY payments_order (order_id),
  KEY payments_reference (gateway, reference),
  CONSTRAINT payments_order FOREIGN KEY (order_id) REFERENCES orders (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE sessions (
  id varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  customer_id bigint unsigned,
  user_agent varchar(255),
  data text NOT NULL,
  created_at datetime NOT NULL,
  last_used_at datetime NOT NULL,
  KEY sessions_used (last_used_at)
) ENGINE=MyISAM DEFAULT CHARSET=utf8mb4;
CREATE TABLE carts (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  customer_id bigint unsigned,
  email varchar(190),
  status varchar(20) NOT NULL,
  updated_at datetime NOT NULL,
  reminded_at datetime
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE cart_items (
  cart_id bigint unsigned NOT NULL,
  variant_id bigint unsigned NOT NULL,
  quantity int NOT NULL,
  PRIMARY KEY (cart_id, variant_id),
  CONSTRAINT cart_items_cart FOREIGN KEY (cart_id) REFERENCES carts (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE admin_users (
  id int unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  username varchar(60) NOT NULL UNIQUE,
  email varchar(190) NOT NULL,
  password_hash varchar(255) NOT NULL,
  role varchar(20) NOT NULL,
  last_login_at datetime,
  two_factor tinyint(1) NOT NULL DEFAULT 0
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE testimonials (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  customer_id bigint unsigned,
  product_id bigint unsigned,
  stars tinyint NOT NULL,
  text text NOT NULL,
  status varchar(20) NOT NULL,
  created_at datetime NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE banners (
  id int unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  title varchar(190) NOT NULL,
  image varchar(190) NOT NULL,
  position int NOT NULL,
  starts_at datetime NOT NULL,
  ends_at datetime
) ENGINE=InnoDB DEFAULT CHARSET=latin1;
CREATE TABLE email_log (
  id bigint unsigned NOT NULL AUTO_INCREMENT,
  order_id bigint unsigned,
  recipient varchar(190) NOT NULL,
  template varchar(60) NOT NULL,
  subject varchar(190) NOT NULL,
  status varchar(20) NOT NULL,
  sent_at datetime NOT NULL,
  PRIMARY KEY (id, sent_at),
  KEY email_log_sent (sent_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
PARTITION BY RANGE COLUMNS (sent_at) (
  PARTITION p_old VALUES LESS THAN ('2025-01-01'),
  PARTITION p_2025 VALUES LESS THAN ('2026-01-01'),
  PARTITION p_new VALUES LESS THAN (MAXVALUE)
);
CREATE TABLE webhook_receipts (
  id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  gateway varchar(20) NOT NULL,
  event_id varchar(60) NOT NULL,
  event varchar(60) NOT NULL,
  body mediumblob NOT NULL,
  signature_valid tinyint(1) NOT NULL,
  received_at datetime NOT NULL,
  UNIQUE KEY webhook_receipts_event (event_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE settings (
  name varchar(60) NOT NULL PRIMARY KEY,
  value text
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
