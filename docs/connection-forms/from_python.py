from airflow.models import Connection

connection = Connection(
    conn_id="coveo_default",
    conn_type="coveo",
    login="myorganizationg8tp8wu3",
    password="xx01234567-89ab-cdef-0123-456789abcdef",
    extra={"region": "eu", "timeout": "10,120"},
)
print(connection.get_uri())
