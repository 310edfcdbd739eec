INSERT INTO product_search(product_search) VALUES ('rebuild');
CREATE INDEX addresses_customer ON addresses(customer_id);
CREATE INDEX variants_product ON variants(product_id);
CREATE INDEX variants_low ON variants(product_id, stock) WHERE stock < low_stock_threshold;
CREATE INDEX orders_customer ON orders(customer_id, placed_at DESC);
CREATE INDEX orders_open ON orders(placed_at) WHERE status IN ('pending', 'paid');
CREATE INDEX order_items_order ON order_items(order_id);
CREATE INDEX payments_order ON payments(order_id);
CREATE INDEX payments_reference ON payments(gateway, reference);
CREATE INDEX customers_name ON customers(lower(name));
CREATE INDEX sessions_used ON sessions(last_used_at);
CREATE TRIGGER product_search_insert AFTER INSERT ON products BEGIN
  INSERT INTO product_search(rowid, title, description) VALUES (new.id, new.title, new.description);
END;
CREATE TRIGGER product_search_delete AFTER DELETE ON products BEGIN
  INSERT INTO product_search(product_search, rowid, title, description) VALUES ('delete', old.id, old.title, old.description);
END;
CREATE TRIGGER product_search_update AFTER UPDATE ON products BEGIN
  INSERT INTO product_search(product_search, rowid, title, description) VALUES ('delete', old.id, old.title, old.description);
  INSERT INTO product_search(rowid, title, description) VALUES (new.id, new.title, new.description);
END;
CREATE VIEW order_totals AS
  SELECT o.id, o.number, o.shipping + coalesce(sum(i.quantity * i.unit_price), 0) AS total
  FROM orders o LEFT JOIN order_items i ON i.order_id = o.id GROUP BY o.id;
CREATE VIEW low_stock AS
  SELECT v.sku, p.title, v.option, v.stock FROM variants v JOIN products p ON p.id = v.product_id WHERE v.is_low;
PRAGMA user_version = 42;
PRAGMA application_id = 1145655891;
ANALYZE;
