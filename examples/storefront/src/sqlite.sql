CREATE TABLE customers (
  id INTEGER PRIMARY KEY,
  email TEXT NOT NULL COLLATE NOCASE UNIQUE,
  name TEXT NOT NULL,
  phone TEXT,
  password_hash TEXT,
  marketing_consent INTEGER NOT NULL DEFAULT 0 CHECK (marketing_consent IN (0, 1)),
  birthday DATE,
  created_at DATETIME NOT NULL,
  note TEXT
);
CREATE TABLE addresses (
  id INTEGER PRIMARY KEY,
  customer_id INTEGER NOT NULL REFERENCES customers(id) ON DELETE CASCADE,
  kind TEXT NOT NULL,
  street TEXT NOT NULL,
  city TEXT NOT NULL,
  postcode TEXT NOT NULL,
  country CHAR(2) NOT NULL
);
CREATE TABLE products (
  id INTEGER PRIMARY KEY,
  slug TEXT NOT NULL UNIQUE,
  title TEXT NOT NULL,
  description TEXT NOT NULL,
  category TEXT NOT NULL,
  weight_kg REAL,
  meta_description TEXT,
  active BOOLEAN NOT NULL DEFAULT 1,
  created_at DATETIME NOT NULL
);
CREATE TABLE variants (
  id INTEGER PRIMARY KEY,
  product_id INTEGER NOT NULL REFERENCES products(id) ON DELETE CASCADE,
  sku TEXT NOT NULL UNIQUE,
  option TEXT NOT NULL,
  price_net NUMERIC NOT NULL CHECK (price_net >= 0),
  price_gross NUMERIC GENERATED ALWAYS AS (round(price_net * 1.2, 2)) STORED,
  stock INTEGER NOT NULL,
  low_stock_threshold INTEGER NOT NULL DEFAULT 5,
  is_low BOOLEAN GENERATED ALWAYS AS (stock < low_stock_threshold) VIRTUAL
);
CREATE TABLE orders (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  number TEXT NOT NULL UNIQUE,
  customer_id INTEGER NOT NULL REFERENCES customers(id),
  status TEXT NOT NULL CHECK (status IN ('pending', 'paid', 'shipped', 'cancelled')),
  currency CHAR(3) NOT NULL,
  shipping NUMERIC NOT NULL DEFAULT 0,
  placed_at DATETIME NOT NULL,
  shipped_at DATETIME,
  ip TEXT,
  note TEXT
);
-- A soft reference, as grown shops have it: nothing but the program keeps it.
CREATE TABLE order_items (
  id INTEGER PRIMARY KEY,
  order_id INTEGER NOT NULL,
  variant_id INTEGER NOT NULL,
  title TEXT NOT NULL,
  quantity INTEGER NOT NULL CHECK (quantity > 0),
  unit_price NUMERIC NOT NULL
);
CREATE TABLE payments (
  id INTEGER PRIMARY KEY,
  order_id INTEGER NOT NULL REFERENCES orders(id),
  gateway TEXT NOT NULL,
  reference TEXT NOT NULL,
  amount NUMERIC NOT NULL,
  status TEXT NOT NULL,
  test_mode INTEGER NOT NULL DEFAULT 0,
  payload TEXT CHECK (json_valid(payload)),
  created_at DATETIME NOT NULL
);
CREATE TABLE sessions (
  id TEXT PRIMARY KEY,
  customer_id INTEGER,
  user_agent TEXT,
  data TEXT NOT NULL,
  created_at DATETIME NOT NULL,
  last_used_at DATETIME NOT NULL
) WITHOUT ROWID;
CREATE TABLE carts (
  id INTEGER PRIMARY KEY,
  customer_id INTEGER,
  email TEXT,
  status TEXT NOT NULL,
  updated_at DATETIME NOT NULL,
  reminded_at DATETIME
);
CREATE TABLE cart_items (
  cart_id INTEGER NOT NULL REFERENCES carts(id) ON DELETE CASCADE,
  variant_id INTEGER NOT NULL,
  quantity INTEGER NOT NULL,
  PRIMARY KEY (cart_id, variant_id)
);
CREATE TABLE admin_users (
  id INTEGER PRIMARY KEY,
  username TEXT NOT NULL UNIQUE,
  email TEXT NOT NULL,
  password_hash TEXT NOT NULL,
  role TEXT NOT NULL,
  last_login_at DATETIME,
  two_factor INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE testimonials (
  id INTEGER PRIMARY KEY,
  customer_id INTEGER,
  product_id INTEGER,
  stars INTEGER NOT NULL,
  text TEXT NOT NULL,
  status TEXT NOT NULL,
  created_at DATETIME NOT NULL
);
CREATE TABLE banners (
  id INTEGER PRIMARY KEY,
  title TEXT NOT NULL,
  image TEXT NOT NULL,
  position INTEGER NOT NULL,
  starts_at DATETIME NOT NULL,
  ends_at DATETIME
);
CREATE TABLE email_log (
  id INTEGER PRIMARY KEY,
  order_id INTEGER,
  recipient TEXT NOT NULL,
  template TEXT NOT NULL,
  subject TEXT NOT NULL,
  status TEXT NOT NULL,
  sent_at DATETIME NOT NULL
);
CREATE TABLE webhook_receipts (
  gateway TEXT NOT NULL,
  event_id TEXT NOT NULL UNIQUE,
  event TEXT NOT NULL,
  body BLOB NOT NULL,
  signature_valid INTEGER NOT NULL,
  received_at DATETIME NOT NULL
);
CREATE TABLE settings (
  name TEXT PRIMARY KEY,
  value TEXT
) WITHOUT ROWID;
CREATE VIRTUAL TABLE product_search USING fts5(title, description, content='products', content_rowid='id');
