"""Run the migrations on the connection that we are given; Alembic loads this file itself."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
